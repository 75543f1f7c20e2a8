"""Arrival rate over a sliding window: 100 samples of 50 ms (Symphony's constants). O(1) a count."""

from __future__ import annotations

from typing import Final

from tenantdl.units import MS, SECOND

SAMPLE: Final = 50 * MS
SAMPLES: Final = 100


class RateMeter:
    """`rate` in requests a second; 0 and not `known` until the first sample is full."""

    def __init__(self) -> None:
        self.rate: float = 0.0
        self.known: bool = False
        self._counts: list[int] = [0] * SAMPLES
        self._sum: int = 0
        self._samples: int = 0
        self._current: int = 0
        self._end: int = -1

    def count(self, requests: int, now: int) -> bool:
        """`requests` more came; whether the rate was renewed, which is once a sample."""
        if now < self._end:
            self._current += requests
            return False
        renewed = self._end >= 0
        if renewed:
            self._roll((now - self._end) // SAMPLE)
            self.rate = self._sum * SECOND / (min(self._samples, SAMPLES) * SAMPLE)
            self.known = True
            self._end += (1 + (now - self._end) // SAMPLE) * SAMPLE
        else:
            self._end = now + SAMPLE
        self._current = requests
        return renewed

    def _roll(self, empty: int) -> None:
        """Put the current sample into the window, then `empty` ones without arrivals."""
        for fresh in [self._current] + [0] * min(empty, SAMPLES):
            place = self._samples % SAMPLES
            self._sum += fresh - self._counts[place]
            self._counts[place] = fresh
            self._samples += 1
