"""This machine as the simulator wants to know it: what lanes cost, measured on real ones.

Lanes with programs that do nothing are ordered about; bandwidth is that of copies on all cores.
Going on with more cores costs what it takes to wake helpers (`groups`), going on elsewhere one more
hand-over; starting with fewer cores than wanted costs nothing by itself. What requests cost outside
the lanes is in `front`.
"""

from __future__ import annotations

import select
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import numpy as np

from tenantdl.bench.front import measure_front
from tenantdl.bench.groups import GroupCost, measure_groups
from tenantdl.documents import write_document
from tenantdl.errors import ExecutionError
from tenantdl.exec.idle_backend import idle_plan
from tenantdl.exec.lane_handle import Address
from tenantdl.exec.lane_memory import lay_out
from tenantdl.exec.lane_pool import LanePool
from tenantdl.ids import CoreId, LaneId, RequestId
from tenantdl.machine import this_machine
from tenantdl.sched.config import LaneSpec
from tenantdl.sched.messages import BlockFinished, Event, LaneReady, Launch, LaunchId
from tenantdl.sim.machines import MachineFile
from tenantdl.units import SECOND, US, Ns

_BLOCKS = 32
# Longer than a lane spins: it has gone to sleep, as it has between requests at low load.
_PAUSE_S = 0.002
_START_S = 60.0
_COPY_BYTES = 64 * 1024**2
_COPIES = 6


def measure(rounds: int = 300, groups: Sequence[GroupCost] = ()) -> MachineFile:
    """Measure for some seconds; `groups` too, unless that was done. Raises ExecutionError if a lane
    does not start."""
    cores = this_machine().cores
    handover, boundary = _lane_costs(cores[0], rounds)
    groups = groups or measure_groups(rounds)
    front = measure_front(handover)
    return MachineFile(
        name="this",
        source=f"measured: {this_machine().model}",
        cores=len(cores),
        domain_cores=len(cores),
        socket_cores=len(cores),
        bandwidth_gbs=round(_bandwidth(len(cores)) / 1e9, 1),
        handover_us=round(handover, 2),
        boundary_us=round(boundary, 2),
        resize_us=round(groups[-1].wake_us, 2),
        conflict_us=0.0,
        migrate_us=round(handover, 2),
        request_us=round(front.request_us, 2),
        request_p95_us=round(front.request_p95_us, 2),
        request_mb_us=round(front.request_mb_us, 2),
    )


def write(machine: MachineFile, path: Path) -> None:
    """As a file that `tenantdl simulate --machine` takes. Raises UserError."""
    lines = [f"{key} = {_toml(value)}" for key, value in msgspec.structs.asdict(machine).items()]
    write_document(path, ("\n".join(lines) + "\n").encode())


def _toml(value: str | float | dict[str, float]) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_toml(key)} = {_toml(v)}" for key, v in value.items()) + "}"
    return msgspec.json.encode(value).decode()


def _lane_costs(core: CoreId, rounds: int) -> tuple[float, float]:
    """Medians in µs: from an order to a sleeping lane until its first block has ended, and from the
    end of one block to that of the next."""
    layout = lay_out(f"idle:{_BLOCKS}", [idle_plan(_BLOCKS)], slots=1, arenas=1)
    lane = LaneSpec(LaneId(0), (core,))
    pool = LanePool([lane], hang=Ns(10 * SECOND), backend="tenantdl.exec.idle_backend")
    programs = pool.attach(layout)
    handovers, boundaries = [], []
    try:
        pool.start(_clock())
        _wait(pool, lambda event: isinstance(event, LaneReady))
        programs.slots.write(0, 0, {"x": np.zeros(1, np.float32)})
        for number in range(1, rounds + 1):
            time.sleep(_PAUSE_S)
            posted = _clock()
            pool.launch(_launch(number, core), Address(programs.base, (0,), 0))
            ends = [
                event.at
                for event in _wait(pool, lambda e: isinstance(e, BlockFinished) and e.next is None)
                if isinstance(event, BlockFinished)
            ]
            handovers.append((ends[0] - posted) / US)
            boundaries.append((ends[-1] - ends[0]) / US / (_BLOCKS - 1))
    finally:
        pool.close()
    boundary = float(np.median(boundaries))
    return max(0.0, float(np.median(handovers)) - boundary), boundary


def _launch(number: int, core: CoreId) -> Launch:
    return Launch(
        launch=LaunchId(number),
        lane=LaneId(0),
        request=RequestId(number),
        arena=0,
        begin=0,
        ends=tuple(range(1, _BLOCKS + 1)),
        preempt=True,
        earliest=Ns(0),
        latest=Ns(0),
        cores=(core,),
        variant=0,
        wanted=1,
    )


def _wait(pool: LanePool, last: Callable[[Event], bool]) -> list[Event]:
    """Events up to the one that is the `last`."""
    events: list[Event] = []
    until = time.monotonic() + _START_S
    while not (events and last(events[-1])):
        if time.monotonic() > until:
            raise ExecutionError("a lane without work does not answer")
        select.select([pool.fileno()], [], [], 0.1)
        events += pool.poll(_clock())
        pool.watch(_clock())
    return events


def _bandwidth(threads: int) -> float:
    """Bytes a second, read and written, of copies on `threads` threads; the best of some."""
    pairs = [
        (np.ones(_COPY_BYTES, np.uint8), np.empty(_COPY_BYTES, np.uint8)) for _ in range(threads)
    ]
    best = 0.0
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(_COPIES):
            start = time.perf_counter()
            list(pool.map(lambda pair: np.copyto(pair[1], pair[0]), pairs))
            best = max(best, 2 * threads * _COPY_BYTES / (time.perf_counter() - start))
    return best


def _clock() -> Ns:
    return Ns(time.monotonic_ns())
