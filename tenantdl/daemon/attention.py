"""Where the daemon's thread runs, and when it stays awake.

A core that falls asleep takes tens of microseconds to wake (in a virtual machine more), and runs
slowly at first; a request changes hands four times. So after every event the thread looks around
for a short while before it sleeps, unless a lane wants its core. And it leaves a core that a lane
is about to use: a lane that is woken on the daemon's core takes it from the daemon for the length
of a block, while another core may be idle. Where it runs is the system's choice otherwise.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import time
from collections.abc import Callable, Sequence

from tenantdl.ids import CoreId
from tenantdl.units import US

# As long as clients need to take an answer in and ask again; those over gRPC take longest. (Who
# yields in between has to have turns as long as others', or they never get theirs.)
SPIN_NS = 600 * US
_present_core: Callable[[], int] = ctypes.CDLL(None).sched_getcpu


class Attention:
    """Of the thread that `start`s it."""

    def __init__(self, lanes: Sequence[CoreId]) -> None:
        """`lanes`: the cores that lanes run on; in masks of cores, bits are places there."""
        self._places = {core: 1 << place for place, core in enumerate(lanes)}
        self._allowed = os.sched_getaffinity(0)
        self._busy = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._until = 0
        self._looking = self._fresh = False

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """From now on."""
        self._loop = loop

    def close(self) -> None:
        """Look no more."""
        self._loop, self._until = None, 0

    def give_way(self, cores: int) -> None:
        """Lanes are about to use `cores` (a mask), among them those that they use already."""
        self._busy = cores
        if self._in_the_way():
            free = {c for c in self._allowed if not self._places.get(CoreId(c), 0) & cores}
            if free:
                os.sched_setaffinity(0, free)
                os.sched_setaffinity(0, self._allowed)

    def look(self, now: int, cores: int) -> None:
        """Something has happened at `now` (monotonic, ns): more may follow shortly. Lanes use
        `cores`."""
        self._busy = cores
        if self._in_the_way():
            return
        self._until, self._fresh = now + SPIN_NS, True
        if not self._looking and self._loop is not None:
            self._looking = True
            self._loop.call_soon(self._again)

    def afterwards(self, work: Callable[[], None]) -> None:
        """Do `work` once the answers that are due now have been sent: the loop sends what was
        written before it comes to what is called from a callback."""
        if (loop := self._loop) is not None:
            loop.call_soon(loop.call_soon, work)

    def _again(self) -> None:
        """Between two of these the loop asks the system for news, without waiting."""
        if time.monotonic_ns() >= self._until or self._loop is None:
            self._looking = False
            return
        if self._fresh:  # answers may be due
            self._fresh = False
        else:
            os.sched_yield()
        self._loop.call_soon(self._again)

    def _in_the_way(self) -> bool:
        return bool(self._places.get(CoreId(_present_core()), 0) & self._busy)
