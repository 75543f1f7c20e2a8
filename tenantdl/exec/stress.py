"""Synthetic neighbours: processes that keep one core, a cache or memory busy.

write    stores to memory that no cache holds
read     loads from it
cache    loads from as much as the core's own caches hold, at random
compute  multiplies matrices that stay in L1

`python -m tenantdl.exec.stress KIND CORE`; the protocol is that of `tenantdl.exec.neighbour`.
"""

from __future__ import annotations

import itertools
import os
import select
import sys
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from tenantdl.machine import this_machine

_MEMORY_BYTES = 256 * 1024**2
_PIECE = 4 * 1024**2
_MATRIX = 48
# Says that it is ready to work.
READY = b"r"

# A piece of work, again and again: some tenths of a millisecond to some milliseconds.
Work = Callable[[], object]


def _pieces() -> Iterator[NDArray[np.float32]]:
    memory = np.ones(_MEMORY_BYTES // 4, np.float32)
    return itertools.cycle(np.array_split(memory, memory.nbytes // _PIECE))


def _write() -> Work:
    pieces = _pieces()
    return lambda: next(pieces).fill(1.0)


def _read() -> Work:
    pieces = _pieces()
    return lambda: next(pieces).max()


def _cache() -> Work:
    held = this_machine().caches.l2_bytes * 3 // 4
    values = np.ones(held // 4, np.float32)
    places = np.random.default_rng(0).permutation(len(values))[: len(values) // 4]
    out = np.empty(len(places), np.float32)
    return lambda: np.take(values, places, out=out, mode="clip")


def _compute() -> Work:
    a = np.full((_MATRIX, _MATRIX), 0.01, np.float32)
    return lambda: [a @ a for _ in range(64)]


KINDS: dict[str, Callable[[], Work]] = {
    "write": _write,
    "read": _read,
    "cache": _cache,
    "compute": _compute,
}


def main(argv: Sequence[str]) -> None:
    """Work until standard input closes."""
    kind, core = argv
    os.sched_setaffinity(0, {int(core)})
    work = KINDS[kind]()
    work()
    os.write(sys.stdout.fileno(), READY)
    owner = sys.stdin.fileno()
    while not select.select([owner], [], [], 0)[0]:
        for _ in range(8):
            work()


if __name__ == "__main__":
    main(sys.argv[1:])
