"""Flush denormal numbers to zero on the calling thread.

A multiply-add on a denormal takes over a hundred cycles. Some networks decay into them: one
convolution of PP-OCR's detector ran 100 times slower on a flat image. The mode is a thread's own,
and threads inherit it from the one that creates them, so it is set before TVM makes its pool.
Python has no call for it; the C library's `fesetenv` writes the control register.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

# fenv_t of glibc: where the control register lies, and its flush-to-zero bits.
_LAYOUTS = {
    "x86_64": (28, 0x8040),  # __mxcsr; flush-to-zero, denormals-are-zero
    "aarch64": (0, 1 << 24),  # __fpcr; FZ
}
_FENV_BYTES = 64


@lru_cache(maxsize=1)
def _libm() -> Any:
    name = ctypes.util.find_library("m")
    return ctypes.CDLL(name) if name else None


def flush_denormals() -> bool:
    """Set the mode for this thread and those it creates; False where the platform has no way."""
    return _flush() is not None


@contextmanager
def denormals_flushed() -> Iterator[None]:
    """The mode for a block of statements; the thread's own is restored."""
    before = _flush()
    try:
        yield
    finally:
        if before is not None:
            _libm().fesetenv(before)


def _flush() -> Any:
    """Set the mode; the floating-point environment before, or None where there is no way."""
    layout, libm = _LAYOUTS.get(platform.machine()), _libm()
    before = (ctypes.c_ubyte * _FENV_BYTES)()
    if layout is None or libm is None or libm.fegetenv(before):
        return None
    offset, bits = layout
    changed = type(before).from_buffer_copy(before)
    ctypes.c_uint32.from_buffer(changed, offset).value |= bits
    return None if libm.fesetenv(changed) else before
