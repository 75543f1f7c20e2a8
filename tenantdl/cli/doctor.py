"""`tenantdl doctor`: is this machine fit to compile and to serve, and what would help."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import typer

from tenantdl.machine import Machine, this_machine

_HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
_SHARED_MEMORY = Path("/dev/shm")
_SHARED_MEMORY_BYTES_MIN = 256 * 1024**2
# The first of these that the machine has is the vector unit that kernels use.
_VECTOR_UNITS = (("avx512f", "AVX-512"), ("avx2", "AVX2"), ("asimd", "NEON"))
_TVM_FFI = "0.1.14.post1"


@dataclass(frozen=True, slots=True)
class Check:
    """One finding. `fail`: something will not work; `warn`: slower than need be."""

    what: str
    state: Literal["ok", "warn", "fail"]
    found: str
    advice: str = ""


def register(app: typer.Typer) -> None:
    """Add the command of this module to `app`."""
    app.command(name="doctor")(doctor_command)


def doctor_command() -> None:
    """Check this machine: CPU, cores, compiler, memory, packages."""
    from tenantdl.cli import render

    found = list(checks(this_machine()))
    rows = [(check.state, check.what, check.found, check.advice) for check in found]
    render.table("", ["", "Check", "Found", "Advice"], rows)
    if any(check.state == "fail" for check in found):
        raise typer.Exit(1)


def checks(machine: Machine) -> Iterator[Check]:
    """Everything that is looked at, on `machine` and in this environment."""
    yield Check("CPU", "ok", f"{machine.model} ({machine.arch})")
    yield _vectors(machine.features)
    yield _cores(machine)
    yield _compiler()
    yield _huge_pages()
    yield _shared_memory()
    yield _tvm()
    yield _peers()


def _vectors(features: frozenset[str]) -> Check:
    for flag, name in _VECTOR_UNITS:
        if flag in features:
            extra = [f for f in ("avx512_vnni", "avx512_bf16", "avx512_fp16") if f in features]
            return Check("vector unit", "ok", " ".join([name, *extra]))
    return Check("vector unit", "warn", "baseline only", "kernels will be slow")


def _cores(machine: Machine) -> Check:
    usable, all_cores = len(machine.cores), os.sysconf("SC_NPROCESSORS_ONLN")
    found = f"{usable} of {all_cores} usable: {', '.join(map(str, machine.cores))}"
    if usable < 2:
        return Check("cores", "warn", found, "serving needs one core beside the lanes to be steady")
    return Check("cores", "ok", found)


def _compiler() -> Check:
    for name in ("cc", "gcc", "clang", "g++"):
        path = shutil.which(name)
        if path:
            return Check("C compiler", "ok", path)
    return Check("C compiler", "fail", "none on PATH", "compiling links with it: install gcc")


def _huge_pages() -> Check:
    try:
        modes = _HUGE_PAGES.read_text()
    except OSError:
        return Check("huge pages", "warn", "not offered by this kernel", "")
    mode = modes.partition("[")[2].partition("]")[0]
    if mode == "never":
        return Check("huge pages", "warn", mode, f"echo madvise > {_HUGE_PAGES} (as root)")
    return Check("huge pages", "ok", mode)


def _shared_memory() -> Check:
    try:
        free = shutil.disk_usage(_SHARED_MEMORY).free
    except OSError:
        return Check(
            "shared memory", "fail", f"no {_SHARED_MEMORY}", "lanes exchange tensors there"
        )
    found = f"{free // 1024**2} MiB free"
    if free < _SHARED_MEMORY_BYTES_MIN:
        return Check("shared memory", "warn", found, "in a container: --shm-size=1g")
    return Check("shared memory", "ok", found)


def _tvm() -> Check:
    try:
        tvm = importlib.metadata.version("apache-tvm")
        ffi = importlib.metadata.version("apache-tvm-ffi")
    except importlib.metadata.PackageNotFoundError as error:
        return Check("TVM", "fail", f"{error.name} is not installed", "pip install tenantdl")
    if ffi != _TVM_FFI:
        return Check("TVM", "fail", f"apache-tvm-ffi {ffi}", f"known to crash: install {_TVM_FFI}")
    return Check("TVM", "ok", f"{tvm}, ffi {ffi}")


def _peers() -> Check:
    names = ("onnxruntime", "openvino")
    absent = [name for name in names if importlib.util.find_spec(name) is None]
    if absent:
        advice = "only to compare with: pip install 'tenantdl[bench]'"
        return Check("peers", "warn", f"{', '.join(absent)} not installed", advice)
    return Check("peers", "ok", ", ".join(names))
