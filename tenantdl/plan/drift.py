"""When measured rates are so far from the planned ones that a new plan is due. Pure.

A new plan is asked for when a rate is off by more than a share (a fifth) and by more than chance
explains, two periods running; and not again before another `HOLD` periods, so that a plan is not
chased by noise. What is planned for then is a moving average.
"""

from __future__ import annotations

from collections.abc import Mapping

_RUNNING = 2
HOLD = 3
_NEWEST = 0.5  # weight of the last period
_SIGMAS = 3.0  # of a Poisson count
_LEAST = 0.02  # of the planned rate: less is planned for as this much, a rate cannot be nothing


class Drift:
    """Compares counts of arrivals with `planned` requests a second by name."""

    def __init__(self, planned: Mapping[str, float], share: float = 0.2) -> None:
        self._share = share
        self._first = dict(planned)
        self._planned = dict(planned)
        self._mean: dict[str, float] = {}
        self._off = 0
        self._held = HOLD

    def note(self, arrivals: Mapping[str, int], period_s: float) -> dict[str, float] | None:
        """What came in the last `period_s` seconds; rates to plan for, if that is due."""
        off = False
        for name, planned in self._planned.items():
            rate = arrivals.get(name, 0) / period_s
            before = self._mean.get(name, rate)
            mean = self._mean[name] = before + _NEWEST * (rate - before)
            chance = _SIGMAS * (max(planned, mean) / period_s) ** 0.5
            off |= abs(mean - planned) > max(self._share * planned, chance)
        self._off = self._off + 1 if off else 0
        self._held += 1
        if self._off < _RUNNING or self._held < HOLD:
            return None
        self._off = self._held = 0
        self._planned = {
            name: max(mean, _LEAST * self._first[name]) for name, mean in self._mean.items()
        }
        return dict(self._planned)
