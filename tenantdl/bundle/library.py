"""TVM's runtime without TVM's compiler: only libtvm_runtime and the tvm_ffi bindings are loaded.

`import tvm` takes over a second and brings LLVM along; serving needs neither.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
from functools import lru_cache
from pathlib import Path
from typing import Any

from tenantdl.errors import UserError
from tenantdl.machine import usable_cores

# Idle pool workers spin this many rounds (about 1 ms) before they sleep. TVM's default burns 72 ms
# of CPU after every parallel loop; 0 makes every launch a wake-up of 22 us and more.
SPIN_COUNT = 2000


@lru_cache(maxsize=1)
def runtime() -> Any:
    """The `tvm_ffi` module with TVM's runtime loaded.

    Sets TVM_NUM_THREADS (the largest pool any thread may ask for) unless it is set. Raises
    UserError when apache-tvm is not installed.
    """
    os.environ.setdefault("TVM_NUM_THREADS", str(len(usable_cores())))
    os.environ.setdefault("TVM_THREAD_POOL_SPIN_COUNT", str(SPIN_COUNT))
    import tvm_ffi

    found = importlib.util.find_spec("tvm")
    if found is None or found.origin is None:
        raise UserError("package apache-tvm is not installed (pip install apache-tvm)")
    library = Path(found.origin).parent / "lib" / "libtvm_runtime.so"
    try:
        ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
    except OSError as error:
        raise UserError(f"TVM's runtime cannot be loaded: {error}", where=str(library)) from error
    return tvm_ffi


def load_library(path: Path) -> Any:
    """The module of kernels in the shared library at `path`; index it by symbol. The caller has
    checked its digest."""
    try:
        return runtime().load_module(str(path))
    except (OSError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[-1]
        raise UserError(f"kernel library cannot be loaded: {reason}", where=str(path)) from error
