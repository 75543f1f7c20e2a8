"""Memory that kernels run through: in huge pages where the system allows.

A model's weights and activations are more than a core's address translation remembers in ordinary
pages, and what it forgot while other models ran has to be looked up again, in a virtual machine
twice. Pages of a file, or shared memory, are huge only where the administrator allows it; private
memory is as a rule, and a fork shares it as long as nobody writes.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os

import numpy as np
from numpy.typing import NDArray

HUGE_PAGE_BYTES = 2 * 1024**2
_libc = ctypes.CDLL(None, use_errno=True)


def allocate(nbytes: int) -> NDArray[np.uint8]:
    """`nbytes` zeros, aligned to a huge page. Raises OSError where there is no memory."""
    size = max(nbytes, 1) + HUGE_PAGE_BYTES
    mapping = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        # Kernels without transparent huge pages refuse; ordinary pages serve then.
        with contextlib.suppress(OSError):
            mapping.madvise(mmap.MADV_HUGEPAGE)
    memory = np.frombuffer(mapping, np.uint8)
    start = -memory.ctypes.data % HUGE_PAGE_BYTES
    return memory[start : start + max(nbytes, 1)]


def seal(memory: NDArray[np.uint8]) -> None:
    """From now on writing to `memory`, of `allocate`, is a fault. Raises OSError."""
    size = -(-memory.size // mmap.PAGESIZE) * mmap.PAGESIZE
    if _libc.mprotect(ctypes.c_void_p(memory.ctypes.data), ctypes.c_size_t(size), mmap.PROT_READ):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
