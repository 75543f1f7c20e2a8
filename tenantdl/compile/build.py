"""Kernels and our C runtime → one shared library, by TVM's LLVM backend and the C compiler.

LLVM takes nearly all the time, one thread a module, so the kernels are dealt to forked processes,
one a core, each of which writes an object file.
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
from typing import Any

from tenantdl.bundle.native import SOURCES
from tenantdl.compile.operator import Kernel
from tenantdl.compile.target import CpuTarget
from tenantdl.errors import ExecutionError, UserError
from tenantdl.machine import this_machine, usable_cores

KERNELS_A_PROCESS_MIN = 6
_FLAGS = ("-shared", "-fPIC", "-O2", "-fvisibility=hidden", "-Wl,-Bsymbolic", "-Wl,-z,defs")
_CROSS_LINKERS = {"x86_64": ("x86_64-linux-gnu-gcc",), "aarch64": ("aarch64-linux-gnu-gcc",)}


def build_library(kernels: Iterable[Kernel], target: CpuTarget, path: Path) -> None:
    """Compile every distinct kernel and link them to `path`.

    Raises UserError when no C compiler for the target is on PATH, ExecutionError when a compiler
    process dies.
    """
    functions = {kernel.key: kernel.func for kernel in kernels}
    linker = _linker(target)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".objects.") as folder:
        objects = _compile(functions, target, Path(folder))
        _link(linker, [*objects, *SOURCES], path)


def _compile(functions: dict[str, Any], target: CpuTarget, folder: Path) -> list[Path]:
    """Object files of all functions, compiled by up to one process a core."""
    workers = max(1, min(len(usable_cores()), len(functions) // KERNELS_A_PROCESS_MIN))
    names = list(functions)
    parts = [names[i::workers] for i in range(workers)]
    objects = [folder / f"part{i}.o" for i in range(workers) if parts[i]]
    # Forked, so that the functions need not be serialised; children only run TVM and exit.
    context = multiprocessing.get_context("fork")
    children = []
    for part, file in zip(parts[1:], objects[1:], strict=True):
        share = {name: functions[name] for name in part}
        child = context.Process(target=_compile_child, args=(share, target, file), daemon=True)
        child.start()
        children.append(child)
    try:
        if objects:
            _compile_part({name: functions[name] for name in parts[0]}, target, objects[0])
        for child in children:
            child.join()
            if child.exitcode != 0:
                raise ExecutionError(f"a compiler process ended with {child.exitcode}")
    finally:
        for child in children:
            child.kill()
            child.join()
    return objects


def _compile_child(functions: dict[str, Any], target: CpuTarget, file: Path) -> None:
    status = 1
    try:
        _compile_part(functions, target, file)
        status = 0
    finally:
        sys.stderr.flush()
        os._exit(status)


def _compile_part(functions: dict[str, Any], target: CpuTarget, file: Path) -> None:
    import tvm
    from tvm import tirx

    built = tirx.build(tvm.IRModule(functions), target=target.tvm)
    built.write_to_file(str(file))


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
