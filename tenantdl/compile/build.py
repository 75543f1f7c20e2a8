"""Kernels and our C runtime → one shared library, by TVM's LLVM backend and the C compiler.

LLVM takes nearly all the time, one thread a module, so forked processes, one a core, share the
kernels out among them; every module becomes an object file. Kernels of a family become one function
where they can (`families`); the others' names call it.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

from tenantdl.bundle.library import SYMBOL_PREFIX
from tenantdl.bundle.native import SOURCES
from tenantdl.compile.families import united
from tenantdl.compile.operator import Kernel
from tenantdl.compile.passes import build
from tenantdl.compile.target import CpuTarget
from tenantdl.errors import ExecutionError, UserError
from tenantdl.machine import this_machine, usable_cores

KERNELS_A_PROCESS_MIN = 6
KERNELS_A_MODULE = 2  # one module has a few milliseconds' cost of its own
_FLAGS = ("-shared", "-fPIC", "-O2", "-fvisibility=hidden", "-Wl,-Bsymbolic", "-Wl,-z,defs")
_CROSS_LINKERS = {"x86_64": ("x86_64-linux-gnu-gcc",), "aarch64": ("aarch64-linux-gnu-gcc",)}


def build_library(
    kernels: Iterable[Kernel],
    target: CpuTarget,
    path: Path,
    families: Mapping[str, str] | None = None,
) -> None:
    """Compile every distinct kernel and link them to `path`. `families`: key of a kernel → what
    those that may differ in extents only have in common; none: each is a function of its own.

    Raises UserError when no C compiler for the target is on PATH, ExecutionError when a compiler
    process dies.
    """
    distinct = list({kernel.key: kernel for kernel in kernels}.values())
    linker = _linker(target)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".objects.") as folder:
        _compile(_packs(distinct, families or {}), target, Path(folder))
        _link(linker, [*sorted(Path(folder).iterdir()), *SOURCES], path)


def _compile(packs: list[list[Kernel]], target: CpuTarget, folder: Path) -> None:
    """Object files of all kernels, compiled by up to one process a core. Whoever is free takes the
    next few kernels: some take a hundred times as long as others."""
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
            found = united(packs[number])
            functions = {one.kernel.key: one.kernel.func for one in found}
            build(functions, target, folder / f"{number:05}.o", flat=packs[number][0].flat)
            calls = [_call(alias, one.kernel.key) for one in found for alias in one.aliases]
            if calls:
                (folder / f"{number:05}.c").write_text("".join(calls))

    def child() -> None:
        status = 1
        try:
            work()
            status = 0
        finally:
            sys.stderr.flush()
            os._exit(status)

    workers = min(len(usable_cores()), sum(map(len, packs)) // KERNELS_A_PROCESS_MIN)
    children = [context.Process(target=child, daemon=True) for _ in range(1, workers)]
    collecting = gc.isenabled()
    gc.disable()  # trees of kernels are large and not cyclic; forked processes do as this one
    try:
        for process in children:
            process.start()
        work()
        for process in children:
            process.join()
            if process.exitcode != 0:
                raise ExecutionError(f"a compiler process ended with {process.exitcode}")
    finally:
        if collecting:
            gc.enable()
        for process in children:
            process.kill()
            process.join()


def _packs(kernels: list[Kernel], families: Mapping[str, str]) -> list[list[Kernel]]:
    """Kernels that are compiled as one module, all flat or none: those of a family, else a few."""
    groups: dict[tuple[str | None, bool], list[Kernel]] = defaultdict(list)
    for kernel in kernels:
        groups[families.get(kernel.key), kernel.flat].append(kernel)
    packs = []
    for (family, _), same in groups.items():
        size = len(same) if family is not None else KERNELS_A_MODULE
        packs += [same[i : i + size] for i in range(0, len(same), size)]
    # The longest first: at the end nobody should wait for one that takes long.
    return sorted(packs, key=len, reverse=True)


def _call(alias: str, key: str) -> str:
    """In C: kernel `alias` is kernel `key`."""
    own, other = f"{SYMBOL_PREFIX}{alias}", f"{SYMBOL_PREFIX}{key}"
    parameters = "void *self, const void *args, int count, void *result"
    return (
        f"int {other}({parameters});\n"
        f'__attribute__((visibility("default"))) int {own}({parameters}) {{\n'
        f"  return {other}(self, args, count, result);\n}}\n"
    )


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
