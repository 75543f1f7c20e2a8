"""Batching composed with the spatial scheduler: a static model without pressure gives Symphony's
decisions exactly; last words, lateness, failures and cancelling reach the right requests."""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field

import msgspec
import numpy as np
import pytest

from tenantdl.ids import CoreId, LaneId, ModelId, RequestId, TenantId
from tenantdl.sched.batched import BatchedScheduler
from tenantdl.sched.batching import messages as batching
from tenantdl.sched.batching.batcher import Batcher
from tenantdl.sched.batching.config import BatchingConfig, QueueSpec
from tenantdl.sched.batching.latency import padded
from tenantdl.sched.batching.times import Times
from tenantdl.sched.config import (
    Batches,
    LaneSpec,
    ModelSpec,
    SchedulerConfig,
    TenantSpec,
    one_core_plan,
)
from tenantdl.sched.costs import PlanCosts
from tenantdl.sched.family import Family, Under
from tenantdl.sched.messages import (
    BlockFailed,
    BlockFinished,
    Cancelled,
    Command,
    Complete,
    Dissolved,
    Event,
    Gathered,
    LaneReady,
    Launch,
    LaunchStarted,
    Reason,
    Reject,
    RequestArrived,
    Tick,
)
from tenantdl.sched.scheduler import Scheduler
from tenantdl.units import MS, SECOND, Ns

SIZES = (1, 2, 4, 8)
# l(b) = slope·b + 4 ms for two models.
SLOPES = {"m": MS, "n": 2 * MS}
SLO = Ns(30 * MS)


def cost(model: str, size: int) -> Ns:
    return Ns(SLOPES[model] * size + 4 * MS)


def config(
    policy: str = "deferred", lanes: int = 2, queue_max: int = 200, **more: object
) -> SchedulerConfig:
    return SchedulerConfig(
        policy="edf",
        lanes=tuple(LaneSpec(LaneId(i), (CoreId(i),)) for i in range(lanes)),
        models=tuple(
            ModelSpec(
                ModelId(m),
                # Each plan in four segments.
                tuple(one_core_plan((cost(m, size) // 4,) * 4) for size in SIZES),
                batches=(Batches(SIZES, (0, 1, 2, 3)),),
            )
            for m in SLOPES
        ),
        tenants=tuple(
            TenantSpec(TenantId(m), queue_max, 8, model=ModelId(m), qos=SLO, batching=policy)
            for m in SLOPES
        ),
        ahead=False,
        **more,  # type: ignore[arg-type]
    )


def request(number: int, at: int, model: str = "m", slo: int = SLO, **more: int) -> RequestArrived:
    return RequestArrived(
        RequestId(number),
        TenantId(model),
        ModelId(model),
        0,
        Ns(at + slo),
        Ns(at + more.get("patience", SECOND)),
        more.get("priority", 0),
    )


@dataclass
class Lanes:
    """Lanes that take exactly what their launches cost, driven in virtual time."""

    scheduler: BatchedScheduler | Scheduler
    lanes: int = 2
    now: int = 0
    batches: list[tuple[int, tuple[int, ...]]] = field(default_factory=list)
    answers: dict[int, tuple[int, Command]] = field(default_factory=dict)
    commands: list[Command] = field(default_factory=list)
    plan: dict[int, tuple[str, int]] = field(default_factory=dict)
    due: list[tuple[int, int, int]] = field(default_factory=list)
    running: dict[int, Launch] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for lane in range(self.lanes):
            self.send(LaneReady(LaneId(lane)))

    def send(self, event: Event) -> None:
        if isinstance(event, RequestArrived):
            self.plan[event.request] = event.model, event.plan
        commands = self.scheduler.handle(event, Ns(self.now))
        self.scheduler.check()
        self.commands += commands
        started = []
        for command in commands:
            match command:
                case Gathered():
                    self.batches.append((self.now, command.members))
                    self.plan[command.batch.request] = command.batch.model, command.batch.plan
                case Launch():
                    assert command.lane not in self.running, "these lanes take no order ahead"
                    self.running[command.lane] = command
                    started.append(command)
                case Complete() | Reject():
                    assert command.request not in self.answers
                    self.answers[command.request] = self.now, command
        for launch in started:
            model, plan = self.plan[launch.request]
            took = cost(model, SIZES[plan]) // 4 * (launch.end - launch.begin)
            heapq.heappush(self.due, (self.now + took, launch.launch, launch.lane))
            self.send(LaunchStarted(launch.lane, launch.launch))

    def advance(self, until: int) -> None:
        """Let everything happen up to `until`."""
        while True:
            wakeup = self.scheduler.next_wakeup()
            end = self.due[0][0] if self.due else None
            times = [t for t in (wakeup, end) if t is not None and t <= until]
            if not times:
                self.now = until
                return
            self.now = min(times)
            if end == self.now:
                self.finish()
            else:
                self.send(Tick())

    def finish(self, *, failed: bool = False) -> None:
        """The next launch ends, block by block at once."""
        self.now, _, lane = heapq.heappop(self.due)
        launch = self.running.pop(lane)
        head = (LaneId(lane), launch.launch, launch.request)
        if failed:
            self.send(BlockFailed(*head, None))
            return
        begin, (model, plan) = launch.begin, self.plan[launch.request]
        for end in launch.ends:
            elapsed = Ns(cost(model, SIZES[plan]) // 4 * (end - begin))
            left = cost(model, SIZES[plan]) // 4 * (launch.end - end)
            follows = launch.launch if end != launch.end else None
            at = Ns(self.now - left)
            self.send(BlockFinished(*head, begin, end, elapsed, at, follows))
            begin = end


def arrivals(rate: float, seconds: float, seed: int) -> list[RequestArrived]:
    rng = np.random.default_rng(seed)
    times = np.cumsum(rng.exponential(SECOND / rate, round(rate * seconds))).astype(int)
    models = rng.choice(list(SLOPES), len(times))
    pairs = zip(times.tolist(), models.tolist(), strict=True)
    return [request(i, at, model) for i, (at, model) in enumerate(pairs, 1)]


def symphony(policy: str, requests: list[RequestArrived]) -> list[tuple[int, tuple[int, ...]]]:
    """What the batcher alone does with the same requests, batches taking what they are planned."""
    queues = tuple(
        QueueSpec(m, padded({size: cost(m, size) for size in SIZES}), SLO) for m in SLOPES
    )
    batcher = Batcher(BatchingConfig(queues, 2, policy))
    found: list[tuple[int, tuple[int, ...]]] = []
    ends: list[tuple[int, int, batching.Batch]] = []

    def send(event: batching.Event, now: int) -> None:
        for command in batcher.handle(event, Ns(now)):
            if isinstance(command, batching.Batch):
                found.append((now, tuple(r.id for r in command.requests)))
                heapq.heappush(ends, (now + command.planned, command.batch, command))

    def advance(until: int) -> None:
        while True:
            wakeup, end = batcher.next_wakeup(), ends[0][0] if ends else None
            times = [t for t in (wakeup, end) if t is not None and t <= until]
            if not times:
                return
            if end == min(times):
                now, _, batch = heapq.heappop(ends)
                send(batching.Finished(batch.slot, batch.batch, batch.earliest, batch.planned), now)
            else:
                send(batching.Tick(), min(times))

    # Queues are opened as their first requests come.
    order = list(dict.fromkeys(r.model for r in requests))
    number = {model: list(SLOPES).index(model) for model in order}
    for r in requests:
        at = r.deadline - SLO
        advance(at)
        waiting = batching.Request(r.request, Ns(at), r.deadline)
        send(batching.Arrived(batching.QueueId(number[r.model]), (waiting,)), at)
    advance(2**60)
    return found


@pytest.mark.parametrize("policy", ["deferred", "eager", "latest", "target-batch", "auto"])
@pytest.mark.parametrize("rate", [60, 250, 500])
def test_a_static_model_without_pressure_is_symphony_exactly(policy: str, rate: float) -> None:
    requests = arrivals(rate, 2.0, seed=round(rate))
    lanes = Lanes(BatchedScheduler(config(policy, refuse_infeasible=True)))
    for r in requests:
        lanes.advance(r.deadline - SLO)
        lanes.send(r)
    lanes.advance(10 * SECOND)
    assert lanes.batches == symphony(policy, requests)
    assert lanes.answers.keys() == {r.request for r in requests}
    in_time = [n for n, (at, c) in lanes.answers.items() if isinstance(c, Complete)]
    assert all(lanes.answers[r.request][0] <= r.deadline for r in requests if r.request in in_time)


def test_without_batching_it_is_the_scheduler() -> None:
    same = config("")
    lanes, plain = Lanes(BatchedScheduler(same)), Lanes(Scheduler(same))
    for r in arrivals(250, 0.5, seed=3):
        for world in (lanes, plain):
            world.advance(r.deadline - SLO)
            world.send(r)
    for world in (lanes, plain):
        world.advance(10 * SECOND)
    assert lanes.commands == plain.commands
    assert lanes.batches == []


def test_the_largest_waiting_batch_runs_together_and_all_are_answered() -> None:
    lanes = Lanes(BatchedScheduler(config("eager", lanes=1)), lanes=1)
    for number in range(1, 6):
        lanes.send(request(number, 0))
    lanes.advance(SECOND)
    # The first goes alone, the four that came meanwhile together.
    assert [members for _, members in lanes.batches] == [(1,), (2, 3, 4, 5)]
    assert {n: at for n, (at, _) in lanes.answers.items()} == {1: 5 * MS} | dict.fromkeys(
        range(2, 6), 13 * MS
    )
    assert sum(isinstance(c, Dissolved) for c in lanes.commands) == 2


@pytest.mark.parametrize("refuse", [False, True])
def test_late_requests_are_run_alone_or_refused(refuse: bool) -> None:
    lanes = Lanes(BatchedScheduler(config("deferred", lanes=1, refuse_infeasible=refuse)), lanes=1)
    lanes.send(request(1, 0, slo=2 * MS))  # less than any batch takes
    lanes.advance(SECOND)
    assert lanes.batches == []
    last = lanes.answers[1][1]
    expected = (
        Reject(RequestId(1), Reason.DEADLINE_INFEASIBLE) if refuse else Complete(RequestId(1))
    )
    assert last == expected


def test_cancelled_and_expired_requests_leave_the_queue() -> None:
    lanes = Lanes(BatchedScheduler(config("deferred", lanes=1)), lanes=1)
    lanes.send(request(1, 0))
    lanes.send(request(2, 0, patience=3 * MS))
    lanes.send(Cancelled(RequestId(1)))
    assert lanes.answers[1][1] == Reject(RequestId(1), Reason.CANCELLED)
    lanes.advance(5 * MS)
    assert lanes.answers[2] == (3 * MS, Reject(RequestId(2), Reason.EXPIRED))


def test_a_batch_goes_on_until_all_its_clients_have_gone() -> None:
    lanes = Lanes(BatchedScheduler(config("eager", lanes=1)), lanes=1)
    for number in range(1, 4):
        lanes.send(request(number, 0))
    lanes.advance(6 * MS)  # 2 and 3 are running together
    lanes.send(Cancelled(RequestId(2)))
    assert 2 not in lanes.answers  # a lane still touches its memory
    lanes.advance(SECOND)
    assert lanes.answers[2][1] == Reject(RequestId(2), Reason.CANCELLED)
    assert lanes.answers[3][1] == Complete(RequestId(3))


def test_members_of_a_batch_that_failed_run_alone() -> None:
    lanes = Lanes(BatchedScheduler(config("eager", lanes=1)), lanes=1)
    for number in range(1, 4):
        lanes.send(request(number, 0))
    lanes.advance(5 * MS)
    lanes.finish(failed=True)
    lanes.finish(failed=True)  # 2, which was at fault
    lanes.advance(SECOND)
    assert lanes.answers[2][1] == Reject(RequestId(2), Reason.EXECUTION_FAILED)
    assert lanes.answers[3][1] == Complete(RequestId(3))


def test_urgent_requests_have_a_queue_of_their_own() -> None:
    lanes = Lanes(BatchedScheduler(config("eager", lanes=1)), lanes=1)
    lanes.send(request(1, 0))
    for number, priority in ((2, 1), (3, 1), (4, 0)):
        lanes.send(request(number, 0, priority=priority))
    lanes.advance(SECOND)
    assert [members for _, members in lanes.batches] == [(1,), (4,), (2, 3)]


def test_tenants_share_a_queue_where_their_terms_say_so() -> None:
    own = config("eager", lanes=1)
    loose = TenantSpec(TenantId("l"), 2, 8, model=ModelId("m"), qos=Ns(2 * SLO), batching="eager")
    for shared in ("", "both"):
        tenants = [msgspec.structs.replace(t, queue=shared) for t in (own.tenants[0], loose)]
        lanes = Lanes(
            BatchedScheduler(msgspec.structs.replace(own, tenants=tuple(tenants))), lanes=1
        )
        lanes.send(request(1, 0))
        for number, tenant in ((2, "l"), (3, "m"), (4, "l"), (5, "l")):
            arrived = request(number, 0, slo=SLO + number)
            lanes.send(msgspec.structs.replace(arrived, tenant=TenantId(tenant)))
        lanes.advance(SECOND)
        together = [(1,), (2, 3, 4)] if shared else [(1,), (2, 4), (3,)]
        assert sorted(members for _, members in lanes.batches) == together
        # Everybody's own bound holds still: the third of two at once.
        refused = [n for n, (_, c) in lanes.answers.items() if isinstance(c, Reject)]
        assert refused == [5] and lanes.answers.keys() == {1, 2, 3, 4, 5}


def test_queues_are_bounded() -> None:
    lanes = Lanes(BatchedScheduler(config("deferred", lanes=1, queue_max=2)), lanes=1)
    for number in range(1, 4):
        lanes.send(request(number, 0))
    assert lanes.answers == {3: (0, Reject(RequestId(3), Reason.QUEUE_FULL))}


def test_expected_times_follow_what_batches_take() -> None:
    times = Times((Ns(10 * MS), Ns(15 * MS)))
    assert times.times() == (10 * MS, 15 * MS)
    for _ in range(64):
        times.observe(2, Ns(15 * MS), 1.0)
    assert times.times() == (10 * MS, 15 * MS)
    assert not times.dynamic
    for _ in range(600):
        times.observe(1, Ns(30 * MS), 1.5)  # twice as long as with what was foreseen
    assert times.times() == (20 * MS, 30 * MS)


def test_the_longest_member_decides_how_long_a_batch_takes() -> None:
    times = Times((Ns(10 * MS), Ns(10 * MS), Ns(10 * MS), Ns(10 * MS)), quantile=0.8)
    for i in range(600):
        times.observe(1, Ns(0), 1.0, [Ns(10 * MS if i % 10 else 40 * MS)])
    assert times.dynamic
    # One in ten is four times as long: below the quantile alone, above it in a batch of four.
    assert times.times()[0] < 20 * MS
    assert times.times()[3] >= 39 * MS


def under(took: int, foreseen: int, slo: int = SLO) -> tuple[Under, Family]:
    """A batch of one for which 5 ms were expected, and its family."""
    costs = PlanCosts(one_core_plan((Ns(5 * MS),)), Ns(MS), 2)
    times = Times((Ns(5 * MS),))
    name = TenantId("m"), ModelId("m")
    family = Family(*name, (1,), (0,), Ns(slo), "auto", (costs,), times)
    batch = batching.Batch(
        batching.BatchId(1), batching.QueueId(0), batching.SlotId(0), (), Ns(0), Ns(0), Ns(0)
    )
    return Under(batch, family, (RequestId(1),), 1.0, took, foreseen), family


def test_what_a_batch_takes_is_what_its_blocks_take() -> None:
    for took, foreseen, expected in ((6, 3, 10), (3, 3, 5), (0, 0, 5)):
        batch, family = under(took * MS, foreseen * MS)
        for _ in range(600):
            batch.learn()
        assert family.lengths()[0] == expected * MS


def test_what_was_learned_does_not_stop_all_learning() -> None:
    batch, family = under(50 * MS, 5 * MS)
    batch.learn()
    assert family.times.times()[0] == 50 * MS
    assert family.lengths()[0] == 5 * MS  # nothing would run that could show anything else
