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
from collections.abc import Iterable

from tenantdl.ids import CoreId
from tenantdl.units import US

# As long as a client needs to take an answer in and ask again.
SPIN_NS = 200 * US


class Attention:
    """`lanes`: the cores that lanes run on."""

    def __init__(self, lanes: Iterable[CoreId]) -> None:
        self._allowed = frozenset(os.sched_getaffinity(0))
        lane_cores = frozenset(lanes)
        # Cores of our own, if there are any: then there is nothing to choose.
        self._own = self._allowed - lane_cores
        self._shared = sorted(self._allowed & lane_cores)
        self._at: frozenset[int] = self._allowed
        self._busy: frozenset[int] = frozenset()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._until = 0
        self._looking = False

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """From now on."""
        self._loop = loop
        self._move(frozenset(self._own or self._shared[-1:]))

    def close(self) -> None:
        """Run wherever, sleep whenever."""
        self._loop, self._until = None, 0
        self._move(self._allowed)

    def busy(self, cores: frozenset[int]) -> None:
        """Lanes use these cores now, or will at once."""
        if cores == self._busy:
            return
        self._busy = cores
        if self._own or self._loop is None:
            return
        if len(self._at) > 1 or self._at & cores:
            free = [core for core in self._shared if core not in cores]
            self._move(frozenset(free[-1:]) or self._allowed)

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
