"""Programs come and go while lanes run: nothing is lost, and what cannot be loaded harms nobody."""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from tenantdl.errors import ExecutionError, UserError
from tenantdl.exec.lane_handle import Address
from tenantdl.exec.lane_memory import lay_out
from tenantdl.exec.lane_pool import LanePool
from tenantdl.exec.program_set import ProgramSet
from tenantdl.ids import LaneId, RequestId
from tenantdl.machine import usable_cores
from tenantdl.sched.config import LaneSpec
from tenantdl.sched.messages import (
    BlockFinished,
    Event,
    LaneLost,
    LaneReady,
    Launch,
    LaunchId,
)
from tenantdl.units import SECOND, Ns
from tests.exec.fake_lane_backend import fake_plan

HERE = Path(__file__).parent
SEGMENTS = 6


def clock() -> Ns:
    return Ns(time.monotonic_ns())


def open_files() -> list[str]:
    folder = Path("/proc/self/fd")
    return sorted(os.readlink(file) for file in folder.iterdir() if file.exists())


class Owner:
    """A pool of two lanes that runs one request after the other, whatever changes."""

    def __init__(self) -> None:
        # Other tests of this process may have pools of their own.
        self.others = set(psutil.Process().children())
        cores = [usable_cores()[0]] * 2
        specs = [LaneSpec(LaneId(i), (core,)) for i, core in enumerate(cores)]
        self.pool = LanePool(specs, hang=Ns(30 * SECOND), backend="fake_lane_backend")
        self.outcomes: list[Exception | None] = []
        self.events: list[Event] = []
        self.launches = 0
        self.first = self.attach(1000)
        self.pool.start(clock())
        self.until(lambda: sum(isinstance(e, LaneReady) for e in self.events) == 2)

    def children(self) -> list[psutil.Process]:
        """Of this pool, dead ones that nobody has waited for among them."""
        ours = [p for p in psutil.Process().children() if p.name().startswith("tenantdl-")]
        return [p for p in ours if p not in self.others]

    def alive(self) -> list[psutil.Process]:
        """The template and the lanes."""
        return [p for p in self.children() if p.status() != psutil.STATUS_ZOMBIE]

    def templates(self) -> list[psutil.Process]:
        return [p for p in self.alive() if p.name() == "tenantdl-load"]

    def attach(self, micros: int) -> ProgramSet:
        layout = lay_out(f"fake:{SEGMENTS}:{micros}", [fake_plan(SEGMENTS, 1000)], 4, 2)
        return self.pool.attach(layout, self.outcomes.append)

    def until(self, met: Callable[[], bool]) -> None:
        end = time.monotonic() + 60
        while not met():
            assert time.monotonic() < end, (self.outcomes, self.events[-5:])
            select.select([self.pool], [], [], 0.02)
            self.events += self.pool.poll(clock())
            self.pool.watch(clock())

    def run(self, programs: ProgramSet, lane: int = 0, *ends: int) -> float:
        """One request on `lane`, in blocks of one segment; what it gives."""
        self.launches += 1
        number = self.launches
        programs.slots.write(0, 0, {"x": np.array([[number, 0]], np.float32)})
        self.launch(programs, number, lane, 0)
        self.until(lambda: self.done(number) == SEGMENTS)
        return float(programs.slots.outputs(0, 0)["y"][0, 0])

    def launch(self, programs: ProgramSet, number: int, lane: int, begin: int) -> None:
        launch = Launch(
            launch=LaunchId(number),
            lane=LaneId(lane),
            request=RequestId(number),
            arena=0,
            begin=begin,
            ends=tuple(range(begin + 1, SEGMENTS + 1)),
            preempt=True,
            earliest=Ns(0),
            latest=Ns(0),
            cores=(usable_cores()[0],),
            variant=0,
            wanted=1,
        )
        self.pool.launch(launch, Address(programs.base, (0,), 0))

    def done(self, request: int) -> int:
        ends = [e.end for e in self.events if isinstance(e, BlockFinished) and e.request == request]
        return max(ends, default=0)


@pytest.fixture
def owner(monkeypatch: pytest.MonkeyPatch) -> Iterator[Owner]:
    monkeypatch.setenv("PYTHONPATH", f"{HERE}:{HERE.parents[1]}")
    made = Owner()
    yield made
    made.pool.close()


def test_programs_come_and_go(owner: Owner) -> None:
    before = set(owner.pool.pids().values())
    second = owner.attach(0)
    owner.until(lambda: len(owner.outcomes) == 2)
    assert owner.outcomes == [None, None]
    assert before.isdisjoint(owner.pool.pids().values())
    assert [owner.run(p, lane) for p in (owner.first, second) for lane in (0, 1)] == [7, 8, 9, 10]
    owner.pool.detach(owner.first, owner.outcomes.append)
    owner.until(lambda: len(owner.outcomes) == 3)
    assert owner.outcomes[-1] is None
    assert owner.run(second, 1) == owner.launches + SEGMENTS
    # The scheduler has seen nothing of all this.
    assert not any(isinstance(event, LaneLost) for event in owner.events)
    assert sum(isinstance(event, LaneReady) for event in owner.events) == 2


def test_a_request_goes_on_in_the_successor(owner: Owner) -> None:
    """A lane in the middle of a launch yields at the end of a block."""
    slow = owner.attach(30_000)
    owner.until(lambda: len(owner.outcomes) == 2)
    slow.slots.write(0, 0, {"x": np.array([[100, 0]], np.float32)})
    owner.launch(slow, 1, 0, 0)
    owner.launches = 1
    owner.attach(0)
    yielded = lambda: any(  # noqa: E731
        isinstance(e, BlockFinished) and e.next is None for e in owner.events
    )
    owner.until(yielded)
    begin = owner.done(1)
    if begin < SEGMENTS:  # else it was quicker than the change
        owner.launch(slow, 2, 0, begin)
    owner.until(lambda: max(owner.done(1), owner.done(2)) == SEGMENTS)
    assert slow.slots.outputs(0, 0)["y"][0, 0] == 100 + SEGMENTS
    owner.until(lambda: len(owner.outcomes) == 3)


@pytest.mark.parametrize(("micros", "kind"), [(666, UserError), (777, ExecutionError)])
def test_what_cannot_be_loaded_harms_nobody(
    owner: Owner, micros: int, kind: type[Exception]
) -> None:
    """It raises; it kills the process that loads it."""
    pids = owner.pool.pids()
    owner.attach(micros)
    owner.until(lambda: len(owner.outcomes) == 2)
    assert isinstance(owner.outcomes[1], kind)
    assert owner.pool.pids() == pids
    assert owner.run(owner.first) == 1 + SEGMENTS
    owner.attach(0)
    owner.until(lambda: len(owner.outcomes) == 3)
    assert owner.outcomes[2] is None


def test_a_template_that_dies_is_made_again(owner: Owner) -> None:
    owner.until(lambda: len(owner.templates()) == 1)  # the first ones go in their own time
    (template,) = owner.templates()
    template.kill()
    owner.until(lambda: not template.is_running() or template.status() == psutil.STATUS_ZOMBIE)
    assert owner.run(owner.first) == 1 + SEGMENTS
    # A lane that dies now is made from the new one.
    os.kill(owner.pool.pids()[LaneId(0)], signal.SIGKILL)
    owner.until(lambda: owner.events[-1] == LaneReady(LaneId(0)))
    assert owner.run(owner.first, 0) == 2 + SEGMENTS
    owner.attach(0)
    owner.until(lambda: len(owner.outcomes) == 2)
    assert owner.outcomes == [None, None]


def test_nothing_is_left_behind(owner: Owner) -> None:
    owner.until(lambda: len(owner.alive()) == 3)
    files = open_files()
    for _ in range(5):
        programs = owner.attach(0)
        owner.pool.detach(programs, owner.outcomes.append)
    del programs
    owner.until(lambda: len(owner.outcomes) == 11)
    owner.run(owner.first)
    owner.until(lambda: len(owner.alive()) == 3)
    owner.until(lambda: len(owner.children()) == 3)  # the dead are buried
    assert len(open_files()) <= len(files), (files, open_files())
