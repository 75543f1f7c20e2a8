"""Compiler, shared memory, packages."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tenantdl.cli.doctor_check import Check

_SHARED_MEMORY = Path("/dev/shm")
_SHARED_MEMORY_BYTES_MIN = 256 * 1024**2
_TVM_FFI = "0.1.14.post1"
# Modules by extra, and what the extra is for.
_EXTRAS = {
    "bench": (("onnxruntime", "openvino"), "to compare with"),
    "tracing": (("opentelemetry",), "for OpenTelemetry traces"),
}


def checks() -> Iterator[Check]:
    """All of them."""
    yield _compiler()
    yield _shared_memory()
    yield _tvm()
    yield from _extras()


def _compiler() -> Check:
    for name in ("cc", "gcc", "clang", "g++"):
        path = shutil.which(name)
        if path:
            return Check("C compiler", "ok", f"{path}{_version(path)}")
    return Check("C compiler", "fail", "none on PATH", "compiling links with it: install gcc")


def _version(compiler: str) -> str:
    try:
        said = subprocess.run(
            [compiler, "-dumpfullversion"], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return f" {said.stdout.strip()}"


def _shared_memory() -> Check:
    try:
        free = shutil.disk_usage(_SHARED_MEMORY).free
    except OSError:
        advice = "clients on this machine exchange tensors there"
        return Check("shared memory", "fail", f"no {_SHARED_MEMORY}", advice)
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


def _extras() -> Iterator[Check]:
    for extra, (names, purpose) in _EXTRAS.items():
        absent = [name for name in names if importlib.util.find_spec(name) is None]
        if absent:
            advice = f"only {purpose}: pip install 'tenantdl[{extra}]'"
            yield Check(extra, "ok", f"{', '.join(absent)} not installed", advice)
        else:
            yield Check(extra, "ok", ", ".join(names))
