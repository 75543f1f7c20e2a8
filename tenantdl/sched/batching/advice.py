"""How many slots more or fewer a load wants, as a value (Symphony §4; the two rules are a
reconstruction from the paper's text)."""

from __future__ import annotations

from collections import deque

from tenantdl.errors import InvariantError
from tenantdl.sched.batching.batcher import Tally
from tenantdl.units import SECOND, Ns

# Fewer bad requests than this are noise, not a lack of slots.
BAD_MAX = 0.01
_SAMPLES = 11


def advice(slots: int, bad: float, idle: float) -> int:
    """How many slots to add (release, if negative) at `slots` of them.

    `bad`: share of requests late or dropped; r bad of what comes means that about r/(1−r) more
    slots serve it. `idle`: share of all slot time without work; whole idle slots can go, but one
    stays. Raises InvariantError for what are no shares.
    """
    if not (0 <= bad <= 1 and 0 <= idle <= 1 and slots > 0):
        raise InvariantError(f"not shares: {bad} bad, {idle} idle of {slots} slots")
    if bad > BAD_MAX:
        return max(round(slots * bad / max(1 - bad, 1 / slots)), 1)
    return -min(int(slots * idle), slots - 1)


class Advisor:
    """Advice from the last ten seconds, renewed every second."""

    def __init__(self, slots: int) -> None:
        self.advice = 0
        self._slots = slots
        self._samples: deque[tuple[Ns, Tally, int]] = deque(maxlen=_SAMPLES)
        self._idle_ns = 0
        self._seen: Ns | None = None
        self._idle = slots

    def sample(self, now: Ns, tally: Tally, idle: int) -> None:
        """At `now` so much has been done in all, and `idle` slots are idle from now on."""
        if self._seen is not None:
            self._idle_ns += self._idle * (now - self._seen)
        self._seen, self._idle = now, idle
        if self._samples and now - self._samples[-1][0] < SECOND:
            return
        self._samples.append((now, tally, self._idle_ns))
        began, before, idle_before = self._samples[0]
        came = tally.arrived - before.arrived
        if now > began:
            idle_share = (self._idle_ns - idle_before) / (self._slots * (now - began))
            bad = (tally.dropped - before.dropped) / came if came else 0.0
            self.advice = advice(self._slots, min(bad, 1.0), min(idle_share, 1.0))
