"""What it costs to run on several cores: a parallel loop that does next to nothing, on groups of
every size, with helpers that spin (as between two loops of a block) and that sleep (as when a group
has just grown). Times in µs."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np

from tenantdl.bundle.library import Calls, KernelCall, Library
from tenantdl.bundle.manifest import ALIGNMENT
from tenantdl.compile.build import build_library
from tenantdl.compile.kernels.emit import Emitter
from tenantdl.compile.operator import Kernel
from tenantdl.compile.target import parse_target
from tenantdl.exec.cores import CoreGroup, group, pin
from tenantdl.machine import this_machine
from tenantdl.units import US

_ITERATIONS = 64
# Longer than helpers spin.
_PAUSE_S = 0.001


class GroupCost(NamedTuple):
    """`loop_us`: a loop on `cores` cores takes so much longer than on one; `wake_us`: the first one
    of a group that has grown from one core takes so much longer than that."""

    cores: int
    loop_us: float
    wake_us: float


def measure_groups(rounds: int) -> list[GroupCost]:
    """Medians of `rounds` loops for groups of 1, 2, 4 … all cores. Raises UserError where kernels
    cannot be compiled."""
    usable = this_machine().cores
    sizes = sorted({*(1 << i for i in range(len(usable).bit_length())), len(usable)})
    with ThreadPoolExecutor(1) as thread:  # affinity and core group are a thread's own
        return thread.submit(_measure, [s for s in sizes if s <= len(usable)], rounds).result()


def _measure(sizes: list[int], rounds: int) -> list[GroupCost]:
    target, usable = parse_target("native"), this_machine().cores
    kernel = _touch(target.lanes)
    space = np.zeros(_ITERATIONS * target.lanes + ALIGNMENT, np.float32)
    skipped = -space.ctypes.data % ALIGNMENT // space.itemsize
    out = space[skipped : skipped + _ITERATIONS * target.lanes].reshape(_ITERATIONS, -1)
    found = []
    with TemporaryDirectory(prefix="tenantdl-groups-") as folder:
        build_library([kernel], target, Path(folder) / "touch.so")
        library = Library(Path(folder) / "touch.so")
        calls = Calls(library, [KernelCall(kernel.key, [out])])
        pin(usable)
        own = group()
        for size in sizes:
            own.choose(usable[:size])
            warm = float(np.median([_loop_us(calls, own, library) for _ in range(rounds)]))
            found.append((size, warm, _woken_us(calls, own, library, size, rounds)))
    _, alone, slept = found[0]
    return [
        GroupCost(size, warm - alone, max(0.0, cold - warm - (slept - alone)))
        for size, warm, cold in found
    ]


def _touch(lanes: int) -> Kernel:
    with Emitter("touch", lanes) as e:
        out = e.param("out", (_ITERATIONS, lanes))
        with e.parallel(_ITERATIONS) as i:
            e.store(out, (i, 0), e.splat(1.0))
    return e.kernel()


def _woken_us(calls: Calls, own: CoreGroup, library: Library, size: int, rounds: int) -> float:
    times = []
    for _ in range(rounds):
        own.choose(own.cores[:1])
        time.sleep(_PAUSE_S)
        start = time.perf_counter_ns()
        own.choose(own.cores[:size])
        chosen = (time.perf_counter_ns() - start) / US
        times.append(chosen + _loop_us(calls, own, library))
    return float(np.median(times))


def _loop_us(calls: Calls, own: CoreGroup, library: Library) -> float:
    start = time.perf_counter_ns()
    calls.run(0, 1, own.pool(library))
    return (time.perf_counter_ns() - start) / US
