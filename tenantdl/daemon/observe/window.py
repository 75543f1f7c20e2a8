"""The last minute of a tenant, second by second: what `status`, the dashboard and autoscale advice
speak of. Counters since the start (metrics) say nothing about now. Times in ns."""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from tenantdl.units import SECOND, US, Ns

SECONDS = 60
# Latencies are kept to within 9 %: eight steps to every doubling.
_STEPS, _FIRST = 8, 10 * US


def bucket(latency: int) -> int:
    """The number of the latency bucket that `latency` falls in."""
    return max(0, math.ceil(math.log2(latency / _FIRST) * _STEPS)) if latency > _FIRST else 0


def bound(number: int) -> Ns:
    """The upper end of bucket `number`."""
    return Ns(round(_FIRST * 2 ** (number / _STEPS)))


@dataclass(slots=True)
class Second:
    """What happened in one second. `busy`: core time; `latencies`: answers by bucket."""

    at: int
    answered: int = 0
    in_time: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    latencies: Counter[int] = field(default_factory=Counter)
    queued: int = 0
    computed: int = 0
    busy: int = 0


class Window:
    """A ring of the last seconds."""

    def __init__(self) -> None:
        self._seconds: deque[Second] = deque(maxlen=SECONDS)

    def at(self, now: Ns) -> Second:
        """The counts of the present second."""
        second = now // SECOND
        if not self._seconds or self._seconds[-1].at < second:
            self._seconds.append(Second(second))
        return self._seconds[-1]

    def seconds(self, now: Ns) -> list[Second]:
        """Those of the last `SECONDS` in which something happened, oldest first."""
        oldest = now // SECOND - SECONDS
        return [second for second in self._seconds if second.at > oldest]


def total(seconds: Iterable[Second]) -> Second:
    """The sum of `seconds`."""
    whole = Second(0)
    for second in seconds:
        whole.answered += second.answered
        whole.in_time += second.in_time
        whole.queued += second.queued
        whole.computed += second.computed
        whole.busy += second.busy
        whole.refused.update(second.refused)
        whole.latencies.update(second.latencies)
    return whole


def percentile(latencies: Counter[int], share: float) -> Ns | None:
    """The latency that `share` of the answers stayed below, to within a bucket."""
    wanted = share * sum(latencies.values())
    seen = 0
    for number in sorted(latencies):
        seen += latencies[number]
        if seen >= wanted:
            return bound(number)
    return None
