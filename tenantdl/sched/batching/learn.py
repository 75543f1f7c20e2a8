"""Run times of a queue's groups, learned online over a sliding window of samples (Orloj §4)."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Sequence

from tenantdl.sched.batching.distribution import Distribution, from_samples, maximum, product
from tenantdl.units import Ns

WINDOW = 512
# A distribution is made anew after this share of a window; the first samples count at once.
_RENEWALS = 16
_RECENT = 64


class Window:
    """The last WINDOW samples of one group."""

    def __init__(self, guess: Distribution) -> None:
        self.now = guess
        self._recent: deque[int] = deque()
        self._ordered: list[int] = []
        self._since = 0

    def observe(self, work: int) -> bool:
        """Whether the distribution was made anew."""
        self._recent.append(work)
        insort(self._ordered, work)
        if len(self._recent) > WINDOW:
            del self._ordered[bisect_left(self._ordered, self._recent.popleft())]
        self._since += 1
        if self._since * _RENEWALS < len(self._recent):
            return False
        self._since = 0
        self.now = from_samples(self._ordered)
        return True


class Patience:
    """How long requests of a queue wait, as the mean of an exponential. Who was dropped would have
    waited longer, nobody knows for how long: its time counts, itself it does not. Each request
    counts 1/64 less than the next one."""

    def __init__(self) -> None:
        self._waited = 0.0
        self._served = 1.0

    def observe(self, waited: Ns, *, served: bool) -> None:
        """One more, that was served or dropped after so long."""
        self._waited += (waited - self._waited) / _RECENT
        self._served += (served - self._served) / _RECENT

    @property
    def value(self) -> float:
        """ns"""
        return self._waited / max(self._served, 1.0 / _RECENT)


class Learner:
    """What is known of one queue. A batch of k takes c0 + c1·k·max of what its requests take alone.

    `guess`: samples of run times alone (ns), for groups that nothing is known of. `version` counts
    the changes: what was computed from an older one is stale.
    """

    def __init__(self, c0: float, c1: float, guess: Sequence[int]) -> None:
        self.c0 = c0
        self.c1 = c1
        self.version = 0
        self._guess = from_samples(sorted(guess))
        self._windows: dict[int, Window] = {}
        self._mix: deque[int] = deque()
        self._counts: dict[int, int] = {}

    def arrived(self, group: int) -> None:
        """A request of `group` came: it counts in the mix of unknown batch-mates."""
        if group not in self._windows:
            self._windows[group] = Window(self._guess)
            self.version += 1
        self._mix.append(group)
        self._counts[group] = self._counts.get(group, 0) + 1
        if len(self._mix) > WINDOW:
            self._counts[self._mix.popleft()] -= 1

    def observe(self, group: int, work: int) -> None:
        """A request of `group` took, or would have taken, `work` ns alone."""
        window = self._windows.setdefault(group, Window(self._guess))
        self.version += window.observe(work)

    def alone(self, group: int) -> Distribution:
        """Run time of a request of `group`, alone."""
        window = self._windows.get(group)
        return window.now if window else self._guess

    def mix(self) -> list[tuple[float, Distribution]]:
        """The groups by their share of recent arrivals."""
        shares = [(n / len(self._mix), g) for g, n in sorted(self._counts.items()) if n]
        return [(share, self.alone(group)) for share, group in shares] or [(1.0, self._guess)]

    def batch_of(self, group: int, size: int) -> Distribution:
        """Run time of a batch of `size` that a request of `group` is in, mates unknown."""
        longest = maximum(self.alone(group), self.mix(), size)
        return longest.scaled(self.c0, self.c1 * size)

    def batch(self, size: int) -> Distribution:
        """Run time of a batch of `size` from the mix."""
        return product([(self.mix(), size)]).scaled(self.c0, self.c1 * size)
