"""Peers restricted to AVX2, so that kernels for smaller CPUs can be compared on a larger one.

Neither onnxruntime nor OpenVINO has a setting for it, but both pick their kernels by CPUID when
they are loaded. `hide.c` makes that instruction answer for a CPU without AVX-512.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tenantdl.compile.target import CpuTarget, native_target
from tenantdl.errors import UserError

_SOURCE = Path(__file__).with_name("hide.c")
_AVX512_LANES, _AVX2 = 16, "haswell"
_PICKED_AT_LOAD = ("onnxruntime", "openvino")


def match(target: CpuTarget) -> None:
    """Let peers that this process loads from now on see a CPU like `target`: all that this one can,
    or AVX2. Raises UserError for another target, or if it is too late or cannot be done here."""
    native = native_target()
    if (target.arch, target.level) == (native.arch, native.level):
        return
    if target.arch != "x86_64" or target.level.mcpu != _AVX2:
        raise UserError(f"peers can be held to native or x86_64:{_AVX2}, not {target.level.mcpu}")
    if native.lanes < _AVX512_LANES:
        return
    loaded = [name for name in _PICKED_AT_LOAD if name in sys.modules]
    if loaded:
        raise UserError(f"{loaded[0]} has picked its kernels already: measure in another process")
    status = _library().tenantdl_hide_avx512()
    if status:
        raise UserError(f"this machine cannot hide AVX-512 from peers: {os.strerror(status)}")


def _library() -> ctypes.CDLL:
    with tempfile.TemporaryDirectory(prefix="tenantdl-hide-") as folder:
        path = Path(folder, "hide.so")
        command = ["cc", "-O2", "-shared", "-fPIC", "-o", str(path), str(_SOURCE)]
        try:
            subprocess.run(command, capture_output=True, text=True, check=True)
        except FileNotFoundError as error:
            raise UserError("a C compiler is needed: cc is not on PATH") from error
        except subprocess.CalledProcessError as error:
            raise UserError(f"cc failed: {error.stderr.strip()[-300:]}") from error
        return ctypes.CDLL(str(path))
