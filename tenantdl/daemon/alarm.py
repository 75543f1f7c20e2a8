"""One timer of the event loop, set again and again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from tenantdl.units import Ns, to_seconds


class Alarm:
    """Calls `ring` at the time it was last set to, or earlier: too early does no harm."""

    def __init__(self, ring: Callable[[], None]) -> None:
        self._ring = ring
        self._timer: asyncio.TimerHandle | None = None
        self._at = Ns(0)

    def set(self, due: Ns | None, loop: asyncio.AbstractEventLoop) -> None:
        """Ring at `due` (monotonic)."""
        if due is None or (self._timer and self._at <= due):
            return
        self.cancel()
        self._at = due
        self._timer = loop.call_later(to_seconds(due - time.monotonic_ns()), self._rings)

    def cancel(self) -> None:
        """Do not ring."""
        if self._timer:
            self._timer.cancel()
            self._timer = None

    def _rings(self) -> None:
        self._timer = None
        self._ring()
