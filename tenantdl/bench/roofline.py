"""What this machine can do at best: multiply-adds a second, bytes a second from each level.

Both are measured with kernels of our own compiler's, so that a figure is a share of what its
kernels could reach: as many independent multiply-add chains as registers hold, and sums over
memory. The best of many rounds counts: a ceiling is not a median.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tenantdl.bench.peers import on_cores
from tenantdl.bundle.library import Calls, KernelCall, Library
from tenantdl.bundle.manifest import LIBRARY
from tenantdl.compile.build import build_library
from tenantdl.compile.kernels.emit import Emitter
from tenantdl.compile.operator import Kernel
from tenantdl.compile.target import CpuTarget, native_target
from tenantdl.exec.cores import group, pin
from tenantdl.ids import CoreId
from tenantdl.units import SECOND

_STEPS = 20_000  # of each chain
_CHAINS_SPARE = 8  # registers left to operands
_STREAMS = 8  # vectors summed side by side
_L3_BYTES_MAX = 32 * 1024**2  # of a core; a bigger set is taken to lie in memory
_MEMORY_BYTES = 128 * 1024**2
_ROUNDS = 30


@dataclass(frozen=True, slots=True)
class Level:
    """Where a working set of up to `bytes_max` lies, and how fast all cores together read it."""

    name: str
    bytes_max: float
    gbytes_s: float


@dataclass(frozen=True, slots=True)
class Machine:
    """Ceilings of `threads` cores together: fp32 GFLOP/s, and GB/s a level, nearest first."""

    threads: int
    gflops: float
    levels: tuple[Level, ...]

    def level(self, nbytes: float) -> Level:
        """The level that holds a working set of so many bytes."""
        return next(level for level in self.levels if nbytes <= level.bytes_max)

    def least_s(self, flops: float, nbytes: float) -> float:
        """The time that arithmetic or reading takes at least, whichever is longer; seconds."""
        return max(flops / self.gflops, nbytes / self.level(nbytes).gbytes_s) / 1e9


def measure(cores: Sequence[CoreId]) -> Machine:
    """The ceilings of `cores`, on which the calling thread stays meanwhile; about a second."""
    target, threads = native_target(), len(cores)
    l2 = target.caches.l2_bytes
    sizes = {"L2": l2 // 2, "L3": max(4 * l2, _L3_BYTES_MAX // 4), "memory": _MEMORY_BYTES}
    sizes = {name: threads * nbytes for name, nbytes in sizes.items()}
    kernels = [_multiply_adds(target, threads)]
    kernels += [_sums(f"sum_{name}", target, threads, size) for name, size in sizes.items()]
    with on_cores(cores), tempfile.TemporaryDirectory(prefix="tenantdl-roofline-") as folder:
        pin(cores)
        path = Path(folder, LIBRARY)
        build_library(kernels, target, path)
        library = Library(path)
        flops = 2.0 * threads * (target.registers - _CHAINS_SPARE) * _STEPS * target.lanes
        gflops = flops / _best_s(library, kernels[0]) / 1e9
        bounds = {"L2": threads * l2 * 0.75, "L3": threads * float(_L3_BYTES_MAX)}
        levels = []
        for kernel, (name, size) in zip(kernels[1:], sizes.items(), strict=True):
            read = size / _best_s(library, kernel) / 1e9
            levels.append(Level(name, bounds.get(name, float("inf")), read))
    return Machine(threads, gflops, tuple(levels))


def _multiply_adds(target: CpuTarget, tasks: int) -> Kernel:
    """Chains x ← x · a + b, in registers."""
    chains = target.registers - _CHAINS_SPARE
    with Emitter("multiply_adds", target.lanes) as e:
        data = e.param("data", (chains + 2, target.lanes))
        out = e.param("out", (tasks, chains, target.lanes))
        with e.parallel(tasks) as task:
            a, b = (e.bind(e.load(data, (chains + i, 0))) for i in range(2))
            registers = e.registers(chains)
            for i, register in enumerate(registers):
                register.set(e.load(data, (i, 0)))
            with e.serial(_STEPS):
                for register in registers:
                    register.set(register.get() * a + b)
            for i, register in enumerate(registers):
                e.store(out, (task, i, 0), register.get())
    return e.kernel()


def _sums(key: str, target: CpuTarget, tasks: int, nbytes: int) -> Kernel:
    """Every task adds up its part of `nbytes`."""
    lines = nbytes // (4 * target.lanes * _STREAMS * tasks)
    with Emitter(key, target.lanes) as e:
        data = e.param("data", (tasks, lines, _STREAMS, target.lanes))
        out = e.param("out", (tasks, _STREAMS, target.lanes))
        with e.parallel(tasks) as task:
            registers = e.registers(_STREAMS)
            with e.serial(lines) as line:
                for i, register in enumerate(registers):
                    register.add(e.load(data, (task, line, i, 0)))
            for i, register in enumerate(registers):
                e.store(out, (task, i, 0), register.get())
    return e.kernel()


def _best_s(library: Library, kernel: Kernel) -> float:
    arrays: list[Any] = [_ones(kind.shape) for kind in kernel.parameters()]
    calls = Calls(library, [KernelCall(kernel.key, arrays)])
    pool = group().pool(library)
    start = time.monotonic()
    times: list[int] = []
    while len(times) < _ROUNDS and time.monotonic() - start < 1.0:
        times += calls.time_ns(pool)
    return min(times) / SECOND


def _ones(shape: tuple[int, ...]) -> Any:
    """Aligned to a cache line."""
    size = int(np.prod(shape))
    space = np.ones(size + 16, np.float32)
    first = -space.ctypes.data % 64 // 4
    return space[first : first + size].reshape(shape)
