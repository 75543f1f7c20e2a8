"""l(b) of a queue as a quantile of what its batches really take: Symphony's table, Orloj's spread.

Batches of b are expected to take `base[b-1]`. How many times as long they do take is learned over a
sliding window: from each member's own time where it is known afterwards (then a batch takes as
long as the longest of its members, F(x)^b), else from whole batches. As long as everything takes
what it should, the quantile is 1 and l(b) is the table, exactly.
"""

from __future__ import annotations

from collections.abc import Sequence

from tenantdl.sched.batching.distribution import Distribution, from_samples, product
from tenantdl.sched.batching.learn import Window
from tenantdl.sched.batching.score import ScoreTable
from tenantdl.units import Ns

# Ratios are whole numbers of parts of a million.
_ONE = 1_000_000
# Expected times that differ by less than one part in so many are the same.
_NEWS = 50
# Run times are called dynamic when nine in ten of them differ by more than this.
SPREAD_MIN = 1.5


class Times:
    """`base` may be moved (`rebase`); `quantile`: of a batch's time, that l(b) stands for.
    `varied`: other requests of the same model, in other queues, take much longer or shorter.
    `scored`: whether the policy ranks by score at all."""

    def __init__(
        self,
        base: Sequence[Ns],
        quantile: float = 0.9,
        *,
        varied: bool = False,
        scored: bool = True,
    ) -> None:
        self.base = tuple(base)
        self._varied = varied
        self._scored = scored
        self._quantile = quantile
        self._window = Window(from_samples([_ONE]))
        self._of_members = False
        self._tables: dict[tuple[int, float], ScoreTable] = {}

    def rebase(self, base: Sequence[Ns]) -> bool:
        """Batches are expected to take `base`; whether that is news."""
        pairs = zip(self.base, base, strict=True)
        if all(abs(new - old) * _NEWS <= old for old, new in pairs):
            return False
        self.base = tuple(base)
        self._tables.clear()
        return True

    def observe(self, size: int, elapsed: Ns, slowdown: float, works: Sequence[Ns] = ()) -> bool:
        """A batch of `size`, for which a `slowdown` was foreseen, took `elapsed`; alone its members
        would have taken `works`. Whether l(b) has changed."""
        renewed = False
        if works:
            self._of_members = True
            for work in works:
                renewed |= self._window.observe(work * _ONE // max(1, self.base[0]))
        else:
            expected = max(1, round(self.base[size - 1] * slowdown))
            renewed = self._window.observe(elapsed * _ONE // expected)
        if renewed:
            self._tables.clear()
        return renewed

    def times(self) -> tuple[Ns, ...]:
        """l(1), l(2), …"""
        return tuple(
            Ns(round(base * self._ratio(size).quantile(self._quantile) / _ONE))
            for size, base in enumerate(self.base, 1)
        )

    def score(self, size: int, delay: float) -> ScoreTable:
        """Orloj's score of a batch of `size`: what its first deadline loses by waiting for another
        `delay` (ns, the mean of an exponential), for each second of slot time."""
        if (size, delay) not in self._tables:
            time = self._ratio(size).scaled(0.0, self.base[size - 1] / _ONE)
            self._tables[size, delay] = ScoreTable(time, delay, size / max(1.0, time.mean))
        return self._tables[size, delay]

    @property
    def dynamic(self) -> bool:
        """Whether run times vary so much that their distribution matters."""
        if self._varied or not self._scored:
            return self._scored
        ratio = self._window.now
        return ratio.quantile(0.95) > SPREAD_MIN * max(1.0, ratio.quantile(0.05))

    def _ratio(self, size: int) -> Distribution:
        if not self._of_members or size == 1:
            return self._window.now
        return product([([(1.0, self._window.now)], size)])


class PointTimes(Times):
    """For batchers that do not know that run times vary: one number, of what all of a model's last
    requests take alone, stands for each. Larger batches take as many times as long as in `base`."""

    def __init__(self, base: Sequence[Ns], works: Window, quantile: float | None) -> None:
        """`works`: shared by all that is known of the model; `quantile`: of them, else the mean."""
        super().__init__(base)
        self._works = works
        self._of_works = quantile

    def observe(self, size: int, elapsed: Ns, slowdown: float, works: Sequence[Ns] = ()) -> bool:
        """A batch ran: what its requests take alone counts, as if profiled."""
        return self._works.observe(self.base[0])

    def times(self) -> tuple[Ns, ...]:
        """l(1), l(2), …"""
        works = self._works.now
        one = works.mean if self._of_works is None else works.quantile(self._of_works)
        return tuple(Ns(round(base * one / max(1, self.base[0]))) for base in self.base)


# Of the policies in `policies`, those that are told so: the quantile, or the mean.
POINTS: dict[str, float | None] = {"edf-mean": None, "edf-p99": 0.99}
