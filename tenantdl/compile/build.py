"""Kernels and our C runtime → one shared library, by TVM's LLVM backend and the C compiler.

LLVM takes nearly all the time, one thread a module, so forked processes, one a core, share the
kernels out among them; every module becomes an object file.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from tenantdl.bundle.native import SOURCES
from tenantdl.compile.operator import Kernel
from tenantdl.compile.passes import build
from tenantdl.compile.target import CpuTarget
from tenantdl.errors import ExecutionError, UserError
from tenantdl.machine import this_machine, usable_cores

KERNELS_A_PROCESS_MIN = 6
KERNELS_A_MODULE = 2  # one module has a few milliseconds' cost of its own
_FLAGS = ("-shared", "-fPIC", "-O2", "-fvisibility=hidden", "-Wl,-Bsymbolic", "-Wl,-z,defs")
_CROSS_LINKERS = {"x86_64": ("x86_64-linux-gnu-gcc",), "aarch64": ("aarch64-linux-gnu-gcc",)}


def build_library(kernels: Iterable[Kernel], target: CpuTarget, path: Path) -> None:
    """Compile every distinct kernel and link them to `path`.

    Raises UserError when no C compiler for the target is on PATH, ExecutionError when a compiler
    process dies.
    """
    distinct = list({kernel.key: kernel for kernel in kernels}.values())
    linker = _linker(target)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".objects.") as folder:
        _compile(distinct, target, Path(folder))
        _link(linker, [*sorted(Path(folder).glob("*.o")), *SOURCES], path)


def _compile(kernels: list[Kernel], target: CpuTarget, folder: Path) -> None:
    """Object files of all kernels, compiled by up to one process a core. Whoever is free takes the
    next few kernels: some take a hundred times as long as others."""
    packs = _packs(kernels)
    # Forked, so that the functions need not be serialised; children only run TVM and exit.
    context = multiprocessing.get_context("fork")
    following = context.Value("i", 0)

    def work() -> None:
        while True:
            with following.get_lock():
                number = following.value
                following.value += 1
            if number >= len(packs):
                return
            pack = packs[number]
            functions = {kernel.key: kernel.func for kernel in pack}
            build(functions, target, folder / f"{number:05}.o", flat=pack[0].flat)

    def child() -> None:
        status = 1
        try:
            work()
            status = 0
        finally:
            sys.stderr.flush()
            os._exit(status)

    workers = min(len(usable_cores()), len(kernels) // KERNELS_A_PROCESS_MIN)
    children = [context.Process(target=child, daemon=True) for _ in range(1, workers)]
    try:
        for process in children:
            process.start()
        work()
        for process in children:
            process.join()
            if process.exitcode != 0:
                raise ExecutionError(f"a compiler process ended with {process.exitcode}")
    finally:
        for process in children:
            process.kill()
            process.join()


def _packs(kernels: list[Kernel]) -> list[list[Kernel]]:
    """Kernels that are compiled as one module: all flat, or none."""
    return [
        same[i : i + KERNELS_A_MODULE]
        for same in ([k for k in kernels if k.flat], [k for k in kernels if not k.flat])
        for i in range(0, len(same), KERNELS_A_MODULE)
    ]


def _link(linker: str, inputs: list[Path], path: Path) -> None:
    command = [linker, *_FLAGS, "-o", str(path), *map(str, inputs), "-lm", "-lpthread"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise UserError(f"linking failed: {done.stderr.strip()[-300:]}", where=str(path))


def _linker(target: CpuTarget) -> str:
    native = target.arch == this_machine().arch
    names = ("cc", "gcc", "clang") if native else _CROSS_LINKERS[target.arch]
    for name in names:
        if found := shutil.which(name):
            return found
    raise UserError(f"linking needs a C compiler on PATH: one of {', '.join(names)}")
