"""Kernels → one shared library, by TVM's LLVM backend and the system's C compiler as linker."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from tenantdl.compile.operator import Kernel
from tenantdl.compile.target import CpuTarget
from tenantdl.errors import UserError

_CROSS_LINKERS = {"x86_64": ("x86_64-linux-gnu-gcc",), "aarch64": ("aarch64-linux-gnu-gcc",)}


def build_library(kernels: Iterable[Kernel], target: CpuTarget, path: Path) -> None:
    """Compile every distinct kernel and link them to `path`.

    Raises UserError when no C compiler for the target is on PATH.
    """
    import tvm

    functions = {kernel.key: kernel.func for kernel in kernels}
    compiled = tvm.compile(tvm.IRModule(functions), target=target.tvm)
    compiled.export_library(str(path), cc=_linker(target))


def _linker(target: CpuTarget) -> str:
    from tenantdl.machine import this_machine

    native = target.arch == this_machine().arch
    names = ("cc", "gcc", "clang") if native else _CROSS_LINKERS[target.arch]
    for name in names:
        if found := shutil.which(name):
            return found
    raise UserError(f"linking needs a C compiler on PATH: one of {', '.join(names)}")
