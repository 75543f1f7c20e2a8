"""Lane processes with a fake backend: what they report, and what happens when they die or hang."""

from __future__ import annotations

import os
import re
import select
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tenantdl.errors import ExecutionError
from tenantdl.exec import lane_pool
from tenantdl.exec.lane import LaneProcess
from tenantdl.exec.lane_handle import Address
from tenantdl.exec.lane_memory import Mapping, lay_out
from tenantdl.exec.lane_pool import LanePool
from tenantdl.exec.lane_wire import CHANNEL_BYTES, YIELD, Channel
from tenantdl.exec.template_wire import Spawn
from tenantdl.ids import CoreId, LaneId, RequestId
from tenantdl.machine import usable_cores
from tenantdl.sched.config import LaneSpec
from tenantdl.sched.messages import (
    BlockFailed,
    BlockFinished,
    Event,
    LaneLost,
    LaneReady,
    Launch,
    LaunchId,
    LaunchStarted,
)
from tenantdl.units import SECOND, Ns
from tests.exec.fake_lane_backend import fake_plan

HERE = Path(__file__).parent
PATIENCE_S = 60


def clock() -> Ns:
    return Ns(time.monotonic_ns())


class Owner:
    """A pool of one or two lanes and the events they have reported."""

    def __init__(self, lanes: int, micros: int, hang_s: float) -> None:
        usable = usable_cores()
        self.cores = [(usable[i % len(usable)],) for i in range(lanes)]
        layout = lay_out(f"fake:6:{micros}", [fake_plan(6, micros * 1000)], slots=4, arenas=2)
        specs = [LaneSpec(LaneId(i), cores) for i, cores in enumerate(self.cores)]
        hang = Ns(round(hang_s * SECOND))
        self.pool = LanePool(specs, hang=hang, backend="fake_lane_backend")
        self.programs = self.pool.attach(layout)
        self.events: list[Event] = []
        self.pool.start(clock())
        self.until(lambda: sum(isinstance(e, LaneReady) for e in self.events) == lanes)

    def until(self, met: Callable[[], bool]) -> None:
        end = time.monotonic() + PATIENCE_S
        while not met():
            assert time.monotonic() < end, self.events
            select.select([self.pool], [], [], 0.02)
            self.events += self.pool.poll(clock())
            self.pool.watch(clock())

    def launch(
        self,
        number: int,
        request: int,
        *ends: int,
        begin: int = 0,
        preempt: bool = True,
        arena: int = 0,
        lane: int = 0,
        cores: tuple[CoreId, ...] | None = None,
    ) -> None:
        command = Launch(
            launch=LaunchId(number),
            lane=LaneId(lane),
            request=RequestId(request),
            arena=arena,
            begin=begin,
            ends=ends,
            preempt=preempt,
            earliest=Ns(0),
            latest=Ns(0),
            cores=self.cores[lane] if cores is None else cores,
            variant=0,
            wanted=1,
        )
        self.pool.launch(command, Address(self.programs.base, (request,), 0))

    def write(self, slot: int, first: float, second: float) -> None:
        self.programs.slots.write(slot, 0, {"x": np.array([[first, second]], np.float32)})

    def result(self, slot: int) -> list[float]:
        return [float(v) for v in self.programs.slots.outputs(slot, 0)["y"][0]]

    def blocks(self, request: int) -> list[tuple[int, int, int | None]]:
        return [
            (e.begin, e.end, e.next)
            for e in self.events
            if isinstance(e, BlockFinished) and e.request == request
        ]

    def done(self, request: int, end: int = 6) -> Callable[[], bool]:
        return lambda: any(block[1] == end for block in self.blocks(request))


@pytest.fixture
def owner(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Owner]]:
    monkeypatch.setenv("PYTHONPATH", f"{HERE}:{HERE.parents[1]}")
    made: list[Owner] = []

    def make(lanes: int = 1, micros: int = 0, hang_s: float = 60) -> Owner:
        made.append(Owner(lanes, micros, hang_s))
        return made[-1]

    yield make
    for one in made:
        one.pool.close()


def test_who_had_the_last_order_wakes_when_one_is_likely(owner: Callable[..., Owner]) -> None:
    alone = owner(lanes=2, micros=0)
    alone.write(0, 0, 0)
    alone.launch(1, 0, 6, lane=1)
    alone.until(alone.done(0))

    def turns(lane: int) -> int:
        """How often it has gone to sleep."""
        status = Path(f"/proc/{alone.pool.pids()[LaneId(lane)]}/status").read_text()
        return int(re.findall(r"^voluntary_ctxt_switches:\s*(\d+)", status, re.MULTILINE)[0])

    asleep = -1
    while asleep != (asleep := turns(1)):
        time.sleep(0.1)
    alone.pool.stir()
    alone.until(lambda: turns(1) > asleep)
    alone.write(1, 5, 0)
    alone.launch(2, 1, 6, lane=1)
    alone.until(alone.done(1))
    assert alone.result(1)[0] == 11


def test_a_launch_runs_block_by_block(owner: Callable[..., Owner]) -> None:
    o = owner()
    o.write(1, 10, 5)
    o.launch(7, 1, 2, 4, 6)
    o.until(o.done(1))
    assert LaunchStarted(LaneId(0), LaunchId(7)) in o.events
    assert o.blocks(1) == [(0, 2, 7), (2, 4, 7), (4, 6, None)]
    assert o.result(1) == [16, 5]


@pytest.mark.skipif(len(usable_cores()) < 2, reason="needs two cores")
def test_an_order_says_which_cores_to_run_on(owner: Callable[..., Owner]) -> None:
    o = owner(lanes=2)
    both = o.cores[0] + o.cores[1]
    for request, cores in ((1, both), (2, o.cores[1]), (3, both)):
        o.write(request, 0, 77)
        o.launch(request, request, 6, lane=1, cores=cores)
        o.until(o.done(request))
        assert o.result(request) == [6, len(cores)]


def test_the_next_order_is_taken_up_at_the_end(owner: Callable[..., Owner]) -> None:
    o = owner(micros=20_000)
    o.write(1, 0, 0)
    o.write(2, 100, 0)
    o.launch(1, 1, 3, 6)
    o.until(lambda: LaunchStarted(LaneId(0), LaunchId(1)) in o.events)
    o.launch(2, 2, 6, preempt=False, arena=1)
    o.until(o.done(2))
    assert o.blocks(1) == [(0, 3, 1), (3, 6, 2)]
    assert (o.result(1), o.result(2)) == ([6, 0], [106, 0])


def test_a_preempted_request_goes_on_in_another_lane(owner: Callable[..., Owner]) -> None:
    o = owner(lanes=2, micros=20_000)
    o.write(1, 0, 0)
    o.write(2, 100, 0)
    o.launch(1, 1, 1, 2, 3, 4, 5, 6)
    o.until(lambda: LaunchStarted(LaneId(0), LaunchId(1)) in o.events)
    o.launch(2, 2, 6, arena=1)
    o.until(lambda: any(block[2] == 2 for block in o.blocks(1)))
    parked_at = o.blocks(1)[-1][1]
    assert parked_at < 6
    o.launch(3, 1, 6, begin=parked_at, lane=1)
    o.until(o.done(1))
    o.until(o.done(2))
    assert (o.result(1), o.result(2)) == ([6, 0], [106, 0])


def test_a_superseded_order_is_never_run(owner: Callable[..., Owner]) -> None:
    o = owner(micros=20_000)
    for slot in (1, 2, 3):
        o.write(slot, 0, 0)
    o.launch(1, 1, 6)
    o.until(lambda: LaunchStarted(LaneId(0), LaunchId(1)) in o.events)
    o.launch(2, 2, 6, arena=1)
    o.launch(3, 3, 6, arena=1)
    o.until(o.done(3))
    assert o.blocks(2) == []
    assert o.blocks(1) == [(0, 6, 3)]


def test_a_raising_kernel_fails_its_request_only(owner: Callable[..., Owner]) -> None:
    o = owner()
    o.write(1, 0, -2)
    o.launch(1, 1, 2, 4, 6)
    o.until(lambda: any(isinstance(e, BlockFailed) for e in o.events))
    assert BlockFailed(LaneId(0), LaunchId(1), RequestId(1), None) in o.events
    o.write(2, 0, 0)
    o.launch(2, 2, 6)
    o.until(o.done(2))


def test_blocks_out_of_order_are_refused(owner: Callable[..., Owner]) -> None:
    o = owner()
    o.write(1, 0, 0)
    o.launch(1, 1, 2)
    o.until(o.done(1, end=2))
    o.launch(2, 1, 6, begin=4)
    o.until(lambda: any(isinstance(e, BlockFailed) for e in o.events))


def test_a_killed_lane_is_lost_then_ready_again(owner: Callable[..., Owner]) -> None:
    o = owner()
    o.write(1, 0, -1)
    o.launch(1, 1, 1, 2, 3, 4, 5, 6)
    o.until(lambda: LaneLost(LaneId(0)) in o.events)
    # What it reported before it died comes first.
    assert o.blocks(1) == [(0, 1, 1), (1, 2, 1), (2, 3, 1)]
    assert o.events[-1] == LaneLost(LaneId(0))
    o.until(lambda: o.events[-1] == LaneReady(LaneId(0)))
    o.write(2, 0, 0)
    o.launch(2, 2, 6)
    o.until(o.done(2))


def test_the_near_end_of_a_launch_rings_only_if_there_is_more_work(
    owner: Callable[..., Owner],
) -> None:
    """Told about a backlog (before the lane was restarted, too), a lane rings a block early."""
    o = owner(micros=30_000)
    o.pool.set_backlog(True)
    os.kill(o.pool.pids()[LaneId(0)], signal.SIGKILL)
    o.until(lambda: o.events[-1:] == [LaneLost(LaneId(0))])
    o.until(lambda: o.events[-1] == LaneReady(LaneId(0)))
    rung = []
    for number, more in ((1, True), (2, False)):
        o.pool.set_backlog(more)
        o.write(number, 0, 0)
        o.launch(number, number, 2, 4, 6)
        while not o.blocks(number):
            assert select.select([o.pool], [], [], PATIENCE_S)[0]
            o.events += o.pool.poll(clock())
        rung.append(o.blocks(number)[-1][1])
        o.until(o.done(number))
    # A late look may find more than it was rung for, never less.
    assert rung[1] == 6 and rung[0] >= 4


def test_an_order_to_a_dead_lane_is_dropped(owner: Callable[..., Owner]) -> None:
    o = owner()
    os.kill(o.pool.pids()[LaneId(0)], signal.SIGKILL)
    o.until(lambda: LaneLost(LaneId(0)) in o.events)
    o.launch(1, 1, 6)
    o.until(lambda: o.events[-1] == LaneReady(LaneId(0)))
    assert o.blocks(1) == []


def test_a_hanging_lane_is_killed(owner: Callable[..., Owner]) -> None:
    o = owner(hang_s=0.5)
    o.write(1, 0, -3)
    o.launch(1, 1, 6)
    o.until(lambda: LaneLost(LaneId(0)) in o.events)


def test_an_idle_lane_that_hangs_is_killed_before_it_gets_an_order(
    owner: Callable[..., Owner],
) -> None:
    o = owner(hang_s=0.4)
    os.kill(o.pool.pids()[LaneId(0)], signal.SIGSTOP)
    o.until(lambda: LaneLost(LaneId(0)) in o.events)
    o.until(lambda: o.events[-1] == LaneReady(LaneId(0)))


def test_a_lane_shows_that_it_lives_when_it_is_ready_and_when_it_takes_an_order() -> None:
    channel = Channel(Mapping.create("channel", CHANNEL_BYTES).memory)
    channel.post(YIELD)  # it need not even look at its bell
    spec = Spawn(LaneId(0), (CoreId(0),), (CoreId(0),), 0, False)
    backend: Any = SimpleNamespace(pin=lambda cores: None, choose=lambda cores: None)
    fds = [os.eventfd(0) for _ in range(3)]
    bells = dict(zip(("bell_fd", "doorbell_fd", "alive_fd"), fds, strict=True))
    LaneProcess(spec, backend, {}, channel, **bells).serve()
    assert channel.beat == 2
    for fd in fds:
        os.close(fd)


def test_a_lane_that_takes_too_long_to_start_is_killed(
    owner: Callable[..., Owner], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lane_pool, "_START_MAX", Ns(0))
    with pytest.raises(ExecutionError, match="lane 0 does not start"):
        owner()


def test_an_idle_lane_is_not_taken_for_hanging(owner: Callable[..., Owner]) -> None:
    o = owner(hang_s=0.2)
    o.write(1, 0, 0)
    o.launch(1, 1, 6)
    o.until(o.done(1))
    end = time.monotonic() + 0.8
    o.until(lambda: time.monotonic() > end)
    assert LaneLost(LaneId(0)) not in o.events


def test_a_lane_busy_from_its_first_moment_is_not_taken_for_hanging(
    owner: Callable[..., Owner],
) -> None:
    o = owner(micros=20_000)
    os.kill(o.pool.pids()[LaneId(0)], signal.SIGKILL)
    o.until(lambda: o.events[-1:] == [LaneLost(LaneId(0))])
    o.until(lambda: LaneId(0) in o.pool.pids())
    while o.events[-1] != LaneReady(LaneId(0)):  # nobody watches meanwhile
        select.select([o.pool], [], [], PATIENCE_S)
        o.events += o.pool.poll(clock())
    o.write(1, 0, 0)
    o.launch(1, 1, 6)
    o.until(o.done(1))
    assert o.events.count(LaneLost(LaneId(0))) == 1


def test_lanes_go_when_their_owner_closes(owner: Callable[..., Owner]) -> None:
    o = owner(lanes=2)
    pids = list(o.pool.pids().values())
    o.pool.close()
    o.pool.close()
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
