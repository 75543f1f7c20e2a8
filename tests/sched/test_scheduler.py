"""Events in, commands out: both policies, on one and two lanes. Times in ms for the reader."""

from __future__ import annotations

import pytest

from tenantdl.errors import InvariantError
from tenantdl.ids import CoreId, LaneId, ModelId, RequestId, TenantId
from tenantdl.sched.config import LaneSpec, ModelSpec, SchedulerConfig, TenantSpec, one_core_plan
from tenantdl.sched.messages import (
    BlockFailed,
    BlockFinished,
    Cancelled,
    Complete,
    LaneLost,
    LaneReady,
    Launch,
    LaunchId,
    LaunchStarted,
    Reason,
    Reject,
    RequestArrived,
    Tick,
)
from tenantdl.sched.placing import PENDING_MAX
from tenantdl.sched.request import State
from tenantdl.sched.scheduler import Scheduler
from tenantdl.units import MS, Ns

# Ten segments of 1.5 ms are ten blocks; two of 1.5 ms are two.
MODELS = (
    ModelSpec(ModelId("big"), (one_core_plan((3 * MS // 2,) * 10),)),
    ModelSpec(ModelId("small"), (one_core_plan((3 * MS // 2,) * 2),)),
)


def ms(time: float) -> Ns:
    return Ns(round(time * MS))


def make(
    policy: str = "edf",
    lanes: int = 1,
    arenas: int = 2,
    models: tuple[ModelSpec, ...] = MODELS,
    **options: object,
) -> Scheduler:
    """A tenant for each of `models`, of its name."""
    tenants = tuple(
        TenantSpec(
            TenantId(m.model), queue_max=int(options.pop(f"{m.model}_queue", 8)), arenas=arenas
        )
        for m in models
    )
    config = SchedulerConfig(
        policy=policy,
        lanes=tuple(LaneSpec(LaneId(i), (CoreId(i),)) for i in range(lanes)),
        models=models,
        tenants=tenants,
        **options,  # type: ignore[arg-type]
    )
    scheduler = Scheduler(config)
    for lane in range(lanes):
        assert scheduler.handle(LaneReady(LaneId(lane)), Ns(0)) == []
    return scheduler


def arrive(
    s: Scheduler, request: int, tenant: str, at: float, deadline: float, expires: float = 1000
) -> list[object]:
    event = RequestArrived(
        RequestId(request), TenantId(tenant), ModelId(tenant), 0, ms(deadline), ms(expires), 0
    )
    return s.handle(event, ms(at))


def started(s: Scheduler, launch: int, at: float, lane: int = 0) -> list[object]:
    return s.handle(LaunchStarted(LaneId(lane), LaunchId(launch)), ms(at))


def finished(
    s: Scheduler,
    launch: int,
    request: int,
    block: int,
    at: float,
    next: int | None,
    lane: int = 0,
) -> list[object]:
    """One block of one segment, just as long as was thought."""
    event = BlockFinished(
        LaneId(lane),
        LaunchId(launch),
        RequestId(request),
        block,
        block + 1,
        ms(1.5),
        ms(at),
        None if next is None else LaunchId(next),
    )
    commands = s.handle(event, ms(at))
    s.check()
    return commands


def brief(commands: list[object]) -> list[tuple[object, ...]]:
    """Commands without numbers that do not matter to the test."""
    short: list[tuple[object, ...]] = []
    for command in commands:
        match command:
            case Launch():
                how = "now" if command.preempt else "after"
                short.append((how, command.lane, command.request, command.begin, command.end))
            case Complete():
                short.append(("complete", command.request))
            case Reject():
                short.append((command.reason.value, command.request))
    return short


def test_an_idle_lane_gets_the_whole_request_in_blocks() -> None:
    s = make()
    (launch,) = arrive(s, 1, "big", 5, 100)
    assert launch == Launch(
        launch=LaunchId(1),
        lane=LaneId(0),
        request=RequestId(1),
        arena=0,
        begin=0,
        ends=tuple(range(1, 11)),
        preempt=True,
        earliest=ms(5),
        latest=ms(85),
        cores=(CoreId(0),),
        variant=0,
        wanted=1,
    )
    assert started(s, 1, 5) == []
    for block in range(9):
        assert finished(s, 1, 1, block, 6.5 + 1.5 * block, next=1) == []
    assert finished(s, 1, 1, 9, 20, next=None) == [Complete(RequestId(1))]
    assert s.live() == {}


def test_edf_preempts_at_the_next_block_and_goes_back() -> None:
    s = make()
    arrive(s, 1, "big", 0, 100)
    started(s, 1, 0)
    finished(s, 1, 1, 0, 1.5, next=1)
    assert brief(arrive(s, 2, "small", 2, 12)) == [("now", 0, 2, 0, 2)]
    # The lane takes the urgent one up at its boundary; the other is parked with what it has done.
    assert finished(s, 1, 1, 1, 3, next=2) == []
    assert s.live() == {1: State.PARKED, 2: State.RUNNING}
    # In the urgent one's last block, the lane learns what comes next.
    assert brief(finished(s, 2, 2, 0, 4.5, next=2)) == [("after", 0, 1, 2, 10)]
    assert brief(finished(s, 2, 2, 1, 6, next=3)) == [("complete", 2)]
    assert s.live() == {1: State.RUNNING}


def test_edf_does_not_preempt_for_a_later_deadline() -> None:
    s = make()
    arrive(s, 1, "small", 0, 10)
    started(s, 1, 0)
    assert arrive(s, 2, "big", 0.5, 100) == []
    assert brief(finished(s, 1, 1, 0, 1.5, next=1)) == [("after", 0, 2, 0, 10)]
    assert brief(finished(s, 1, 1, 1, 3, next=2)) == [("complete", 1)]


def test_a_launch_not_begun_yet_is_superseded_by_a_more_urgent_one() -> None:
    s = make()
    arrive(s, 1, "big", 0, 100)
    assert brief(arrive(s, 2, "small", 0.01, 10)) == [("now", 0, 2, 0, 2)]
    # The lane was quick enough to take the first up: both ran.
    assert started(s, 1, 0.02) == []
    assert s.live() == {1: State.RUNNING, 2: State.PLACED}
    s = make()
    arrive(s, 1, "big", 0, 100)
    arrive(s, 2, "small", 0.01, 10)
    # It was not: the first one waits again, without an arena.
    started(s, 2, 0.02)
    assert s.live() == {1: State.WAITING, 2: State.RUNNING}
    s.check()


def test_an_idle_lane_is_not_given_a_second_launch_before_it_began_the_first() -> None:
    s = make()
    arrive(s, 1, "small", 0, 10)
    assert arrive(s, 2, "small", 0.01, 11) == []


def test_two_lanes_the_idle_one_first_then_the_least_urgent() -> None:
    s = make(lanes=2)
    assert brief(arrive(s, 1, "big", 0, 50)) == [("now", 0, 1, 0, 10)]
    started(s, 1, 0)
    assert brief(arrive(s, 2, "big", 0, 90)) == [("now", 1, 2, 0, 10)]
    started(s, 2, 0, lane=1)
    assert brief(arrive(s, 3, "small", 1, 20)) == [("now", 1, 3, 0, 2)]


def test_a_lane_without_other_work_takes_over_what_is_parked_elsewhere() -> None:
    s = make(lanes=2)
    arrive(s, 1, "big", 0, 50)
    started(s, 1, 0)
    arrive(s, 2, "small", 0, 6)
    started(s, 2, 0, lane=1)
    arrive(s, 3, "small", 1, 12)
    finished(s, 1, 1, 0, 1.5, next=3)
    assert s.live()[RequestId(1)] is State.PARKED
    assert brief(finished(s, 2, 2, 0, 1.6, next=2, lane=1)) == [("after", 1, 1, 1, 10)]


def test_hopeless_requests_go_last() -> None:
    s = make()
    arrive(s, 1, "big", 0, 100)
    started(s, 1, 0)
    # 3 ms of work, due in 2: it neither preempts nor goes before work that can still be in time.
    assert arrive(s, 2, "small", 0, 2) == []
    assert brief(arrive(s, 3, "small", 0, 50)) == [("now", 0, 3, 0, 2)]
    finished(s, 1, 1, 0, 1.5, next=2)
    assert brief(finished(s, 2, 3, 0, 3, next=2)) == [("after", 0, 1, 1, 10)]
    finished(s, 2, 3, 1, 4.5, next=3)
    for block in range(1, 8):
        assert finished(s, 3, 1, block, 4.5 + 1.5 * block, next=3) == []
    assert brief(finished(s, 3, 1, 8, 18, next=3)) == [("after", 0, 2, 0, 2)]


def test_a_request_that_turned_hopeless_while_running_gives_way() -> None:
    s = make()
    arrive(s, 1, "big", 0, 20)
    started(s, 1, 0)
    assert arrive(s, 2, "big", 1, 90) == []
    # The first block took 8 ms: 13.5 ms of work are left and 12 ms of time.
    slow = BlockFinished(LaneId(0), LaunchId(1), RequestId(1), 0, 1, ms(8), ms(8), LaunchId(1))
    # A report from the middle of a launch decides nothing yet; the next occasion does.
    assert s.handle(slow, ms(8)) == []
    assert brief(s.handle(Tick(), ms(8))) == [("now", 0, 2, 0, 10)]


def test_an_arena_is_taken_from_a_hopeless_parked_request() -> None:
    s = make()
    arrive(s, 1, "big", 0, 16)
    started(s, 1, 0)
    finished(s, 1, 1, 0, 1.5, next=1)
    arrive(s, 2, "small", 2, 10)
    finished(s, 1, 1, 1, 3, next=2)
    arrive(s, 3, "big", 3, 60)
    # Big's two arenas: one parked with request 1 (hopeless by now), one to come with request 3.
    assert brief(finished(s, 2, 2, 0, 4.5, next=2)) == [("after", 0, 3, 0, 10)]
    finished(s, 2, 2, 1, 6, next=3)
    assert brief(arrive(s, 4, "big", 6, 50)) == [("now", 0, 4, 0, 10)]
    assert s.live()[RequestId(1)] is State.WAITING
    s.check()


def test_fcfs_runs_whole_requests_in_the_order_of_arrival() -> None:
    s = make("model-fcfs")
    assert brief(arrive(s, 1, "big", 0, 100)) == [("now", 0, 1, 0, 10)]
    started(s, 1, 0)
    assert arrive(s, 2, "big", 1, 90) == []
    assert arrive(s, 3, "small", 1.2, 5) == []
    for block in range(8):
        assert finished(s, 1, 1, block, 1.5 * (block + 1), next=1) == []
    assert brief(finished(s, 1, 1, 8, 13.5, next=1)) == [("after", 0, 2, 0, 10)]
    assert brief(finished(s, 1, 1, 9, 15, next=2)) == [("complete", 1)]


def test_a_long_request_is_launched_in_parts() -> None:
    s = make(blocks_max=4)
    assert brief(arrive(s, 1, "big", 0, 100)) == [("now", 0, 1, 0, 4)]
    started(s, 1, 0)
    finished(s, 1, 1, 0, 1.5, next=1)
    finished(s, 1, 1, 1, 3, next=1)
    assert brief(finished(s, 1, 1, 2, 4.5, next=1)) == [("after", 0, 1, 4, 8)]
    # The lane looked just before the order came: it fell idle and takes it up a moment later.
    assert finished(s, 1, 1, 3, 6, next=None) == []
    assert s.live() == {1: State.PLACED}
    assert started(s, 2, 6.01) == []
    assert s.live() == {1: State.RUNNING}


def test_a_queue_that_fills_drops_who_waits_in_vain() -> None:
    s = make(small_queue=10)
    for number in range(4):
        arrive(s, number, "small", 0, 4)
    assert len(s.live()) == 4
    # Three of them are hopeless by now; with half the queue full they stay, with more they go.
    assert brief(arrive(s, 4, "small", 3, 100)) == []
    assert brief(arrive(s, 5, "small", 3, 100)) == []
    said = brief(arrive(s, 6, "small", 3, 100))
    assert said == [("deadline_infeasible", number) for number in (1, 2, 3)]
    assert sorted(s.live()) == [0, 4, 5, 6]


def test_a_reserve_makes_deadlines_earlier() -> None:
    s = make(reserve=100)
    arrive(s, 1, "big", 10, 30)
    assert s.book.requests[RequestId(1)].deadline == ms(28)
    arrive(s, 2, "big", 40, 30)  # late on arrival
    assert s.book.requests[RequestId(2)].deadline == ms(30)


def test_refusals_at_arrival() -> None:
    s = make(small_queue=1, refuse_infeasible=True)
    assert brief(arrive(s, 1, "big", 0, 10)) == [("deadline_infeasible", 1)]
    assert brief(arrive(s, 2, "small", 0, 10)) == [("now", 0, 2, 0, 2)]
    assert brief(arrive(s, 3, "small", 0, 10)) == [("queue_full", 3)]
    assert brief(arrive(s, 4, "big", 5, 90, expires=5)) == [("expired", 4)]


def test_who_waits_too_long_is_refused_when_the_wakeup_comes() -> None:
    s = make()
    assert s.next_wakeup() is None
    arrive(s, 1, "small", 0, 10, expires=40)
    started(s, 1, 0)
    arrive(s, 2, "big", 0, 100, expires=30)
    assert s.next_wakeup() == ms(30)
    assert s.handle(Tick(), ms(29)) == []
    assert s.handle(Tick(), ms(30)) == [Reject(RequestId(2), Reason.EXPIRED)]
    # What runs is left to run; its answer still counts.
    assert s.next_wakeup() == ms(40)
    assert s.handle(Tick(), ms(40)) == []
    finished(s, 1, 1, 0, 41, next=1)
    assert brief(finished(s, 1, 1, 1, 43, next=None)) == [("complete", 1)]


def test_a_lost_lane_retries_what_can_still_be_in_time() -> None:
    s = make(lanes=2)
    arrive(s, 1, "big", 0, 30)
    started(s, 1, 0)
    arrive(s, 2, "big", 0, 16)
    started(s, 2, 0, lane=1)
    finished(s, 1, 1, 0, 1.5, next=1)
    assert s.handle(LaneLost(LaneId(0)), ms(2)) == []
    assert s.live() == {1: State.WAITING, 2: State.RUNNING}
    assert s.handle(LaneLost(LaneId(1)), ms(3)) == [Reject(RequestId(2), Reason.LANE_LOST)]
    assert brief(s.handle(LaneReady(LaneId(1)), ms(4))) == [("now", 1, 1, 0, 10)]
    started(s, 3, 4, lane=1)
    # It has taken two lanes with it: no third.
    assert s.handle(LaneLost(LaneId(1)), ms(5)) == [Reject(RequestId(1), Reason.LANE_LOST)]
    s.check()


def test_what_is_parked_survives_its_lane() -> None:
    s = make(lanes=2)
    arrive(s, 1, "big", 0, 90)
    started(s, 1, 0)
    arrive(s, 2, "big", 0, 60)
    started(s, 2, 0, lane=1)
    arrive(s, 3, "small", 1, 10)
    finished(s, 1, 1, 0, 1.5, next=3)
    s.handle(LaneLost(LaneId(0)), ms(2))
    assert s.live() == {1: State.PARKED, 2: State.RUNNING, 3: State.PLACED}
    s.check()


def test_a_failed_block_refuses_its_request_only() -> None:
    s = make()
    arrive(s, 1, "big", 0, 90)
    started(s, 1, 0)
    arrive(s, 2, "big", 0, 95)
    failed = BlockFailed(LaneId(0), LaunchId(1), RequestId(1), None)
    commands = s.handle(failed, ms(1))
    assert brief(commands) == [("execution_failed", 1), ("now", 0, 2, 0, 10)]
    s.check()


def test_a_cancelled_request_is_dropped_at_once_unless_a_lane_holds_it() -> None:
    s = make()
    arrive(s, 1, "big", 0, 90)
    started(s, 1, 0)
    arrive(s, 2, "big", 0, 95)
    assert s.handle(Cancelled(RequestId(2)), ms(1)) == [Reject(RequestId(2), Reason.CANCELLED)]
    assert s.handle(Cancelled(RequestId(1)), ms(1)) == []
    # Anything else is more urgent than work nobody waits for.
    assert brief(arrive(s, 3, "big", 1.1, 500)) == [("now", 0, 3, 0, 10)]
    assert brief(finished(s, 1, 1, 0, 1.5, next=2)) == [("cancelled", 1)]
    assert s.handle(Cancelled(RequestId(77)), ms(2)) == []


def test_what_cannot_be_is_an_invariant_error() -> None:
    s = make()
    arrive(s, 1, "big", 5, 90)
    with pytest.raises(InvariantError, match="time went back"):
        s.handle(Tick(), ms(4))
    with pytest.raises(InvariantError, match="arrived twice"):
        arrive(s, 1, "big", 5, 90)
    with pytest.raises(InvariantError, match="cannot begin launch 9"):
        started(s, 9, 5)
    with pytest.raises(InvariantError, match="but reports"):
        finished(s, 1, 1, 0, 6, next=None)
    started(s, 1, 6)
    with pytest.raises(InvariantError, match=r"(?s)segments 3:4.*arrived, deadline"):
        finished(s, 1, 1, 3, 7, next=None)
    with pytest.raises(InvariantError, match="was never declared"):
        s.handle(LaneReady(LaneId(5)), ms(8))
    with pytest.raises(TypeError):
        s.handle("arrived", ms(9))  # type: ignore[arg-type]


def test_orders_under_way_to_a_lane_are_bounded() -> None:
    """Ever more urgent requests arrive while the lane says nothing."""
    s = make(arenas=20, small_queue=20)
    issued = [len(arrive(s, number, "small", 0, 900 - number)) for number in range(1, 13)]
    assert issued == [1] * PENDING_MAX + [0] * (12 - PENDING_MAX)
    s.check()
    # The lane took up the last it saw: the others wait again, and the most urgent goes first.
    commands = started(s, PENDING_MAX, 0.1)
    assert brief(commands) == [("now", 0, 12, 0, 2)]
    s.check()


def test_backlog_is_work_beyond_what_is_under_way() -> None:
    s = make(blocks_max=4)
    assert not s.backlog()
    arrive(s, 1, "small", 0, 50)
    assert not s.backlog()
    started(s, 1, 0)
    assert not s.backlog()
    arrive(s, 2, "big", 0, 90)
    assert s.backlog()
    finished(s, 1, 1, 0, 1.5, next=1)
    assert not s.backlog()
    # Its launch ends before the request does: something is left to say.
    finished(s, 1, 1, 1, 3, next=2)
    assert s.backlog()
