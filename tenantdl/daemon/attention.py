"""Where the daemon's thread runs, and when it stays awake.

A core that falls asleep takes tens of microseconds to wake (in a virtual machine more), and runs
slowly at first; a request changes hands four times. So after every event the thread looks around for
a short while before it sleeps, provided that there is a core that no lane wants. And it stays off the
cores that lanes are about to use: a lane that is woken on the daemon's core would take it from the
daemon for the length of a block, while another core may be idle.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence

from tenantdl.ids import CoreId
from tenantdl.units import US

# As long as a client needs to take an answer in and ask again.
SPIN_NS = 200 * US


class Attention:
    """Of the thread that `start`s it."""

    def __init__(self, lanes: Sequence[CoreId]) -> None:
        """`lanes`: the cores that lanes run on; in masks of cores, bits are places there."""
        self._lanes = lanes
        self._allowed = frozenset(os.sched_getaffinity(0))
        # Cores of our own, if there are any: then there is nothing to choose.
        self._own = self._allowed.difference(lanes)
        self._at: frozenset[int] = self._allowed
        self._busy = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._until = 0
        self._looking = False

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """From now on."""
        self._loop = loop
        self._move(self._own or frozenset(self._free()[-1:]))

    def close(self) -> None:
        """Run wherever, sleep whenever."""
        self._loop, self._until = None, 0
        self._move(self._allowed)

    def busy(self, cores: int) -> None:
        """Lanes use these cores (a mask) now, or will at once."""
        if cores == self._busy:
            return
        self._busy = cores
        if self._own or self._loop is None:
            return
        free = self._free()
        if len(self._at) > 1 or not self._at.issubset(free):
            self._move(frozenset(free[-1:]) or self._allowed)

    def _free(self) -> list[CoreId]:
        """Cores that no lane uses."""
        every = enumerate(self._lanes)
        return [c for i, c in every if not self._busy >> i & 1 and c in self._allowed]

    def look(self, now: int) -> None:
        """Something has happened at `now` (monotonic, ns): more may follow shortly."""
        if len(self._at) > 1 and not self._own:
            return  # lanes want all cores
        self._until = now + SPIN_NS
        if not self._looking and self._loop is not None:
            self._looking = True
            self._loop.call_soon(self._again)

    def _again(self) -> None:
        """The loop asks the system for news, without waiting, between two of these."""
        if time.monotonic_ns() >= self._until or self._loop is None:
            self._looking = False
            return
        os.sched_yield()
        self._loop.call_soon(self._again)

    def _move(self, cores: frozenset[int]) -> None:
        if cores != self._at and cores:
            self._at = cores
            os.sched_setaffinity(0, cores)
