"""Page tables for memory that is shared. A fork does not copy them: the first request in a new lane
would stop at every page of weights, arenas and slots."""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Iterator
from pathlib import Path

import numpy as np

# madvise(2), since Linux 5.14; older ones refuse, and pages are found one by one.
_POPULATE_READ, _POPULATE_WRITE = 22, 23
_PIECE = 1 << 30
_libc = ctypes.CDLL(None)


def find_pages() -> None:
    """Enter all shared memory of this process that the system holds into its page tables: what is
    only a promise yet stays one. Takes about 0.1 s a GiB."""
    for address, nbytes, writable in _shared():
        advice = _POPULATE_WRITE if writable else _POPULATE_READ
        for begin in range(0, nbytes, _PIECE):
            _find(address + begin, min(_PIECE, nbytes - begin), advice)


def _find(address: int, nbytes: int, advice: int) -> None:
    page = mmap.PAGESIZE
    held = np.zeros(-(-nbytes // page), np.uint8)
    place, size = ctypes.c_void_p(address), ctypes.c_size_t(nbytes)
    if _libc.mincore(place, size, ctypes.c_void_p(held.ctypes.data)):
        return
    edges = np.flatnonzero(np.diff(held & 1, prepend=0, append=0))
    for first, last in edges.reshape(-1, 2).tolist():
        where, length = address + first * page, (last - first) * page
        _libc.madvise(ctypes.c_void_p(where), ctypes.c_size_t(length), advice)


def _shared() -> Iterator[tuple[int, int, bool]]:
    """Address, bytes, and whether it may be written, of every shared mapping (proc_pid_maps(5))."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        addresses, modes = line.split()[:2]
        if modes[0] == "r" and modes[3] == "s":
            begin, end = (int(text, 16) for text in addresses.split("-"))
            yield begin, end - begin, modes[1] == "w"
