"""How much a request loses by waiting: Orloj's time-varying score in closed form (§5; ours).

A request that ends after its deadline D costs 1. If it waits for another τ ~ Exp(b), its expected
cost rises by p(t) = E[cost | start t+τ] − E[cost | start t]. For run times L in bins of density f,
with s = D − t left:

    p = Σ over bins below s of f/b·(e^(−b(s−hi)) − e^(−b(s−lo)))
        + f/b·(1 − e^(−b(s−lo))) of the bin that s lies in

An atom of mass m at l ≤ s adds m·e^(−b(s−l)). So p = A·e^(−b·s) + B, where A and B only change when
s passes an edge; here A is kept relative to that edge, so that nothing overflows. Orloj ranks by
p/E[L]: cost saved a second of slot time. Times in ns.
"""

from __future__ import annotations

from bisect import bisect_right
from math import ceil, exp

from tenantdl.sched.batching.distribution import Distribution


class ScoreTable:
    """Scores of requests whose batch takes as long as `time` says. `delay`: 1/b, the mean of τ.
    `weight` multiplies all scores: 1/E[L] for Orloj's."""

    def __init__(self, time: Distribution, delay: float, weight: float) -> None:
        self.time = time
        self.rate = 1.0 / delay
        self.weight = weight
        # For s in [edges[i], edges[i+1]): p = a[i]·e^(−rate·(s − edges[i])) + b[i].
        self.edges: list[float] = []
        self._a: list[float] = []
        self._b: list[float] = []
        a = 0.0
        for lo, hi, mass in zip(time.lo, time.hi, time.mass, strict=True):
            if lo == hi:
                a = self._edge(lo, a, mass, 0.0)
            else:
                height = mass / (hi - lo) / self.rate
                a = self._edge(lo, a, -height, height)
                a = self._edge(hi, a, height, 0.0)

    def _edge(self, at: float, a: float, step: float, b: float) -> float:
        """From `at` on there is another a (by `step`) and b; the new a, relative to `at`."""
        if self.edges:
            a *= exp(self.rate * (self.edges[-1] - at))
        a += step
        if self.edges and self.edges[-1] == at:
            self._a[-1], self._b[-1] = a, b
        else:
            self.edges.append(at)
            self._a.append(a)
            self._b.append(b)
        return a

    @property
    def shortest(self) -> float:
        """A request with less time than this cannot be in time."""
        return self.edges[0]

    def score(self, deadline: int, now: int) -> float:
        """The score at `now`; 0 for a request that cannot be in time any more."""
        left = deadline - now
        place = bisect_right(self.edges, left) - 1
        if place < 0:
            return 0.0
        decayed = self._a[place] * exp(self.rate * (self.edges[place] - left))
        return (decayed + self._b[place]) * self.weight

    def line(self, deadline: int, now: int, origin: int) -> tuple[float, float, int]:
        """(α, β, until): the score is α·e^(rate·(t − origin)) + β for t from `now` to `until`."""
        place = bisect_right(self.edges, deadline - now) - 1
        if place < 0:
            return 0.0, 0.0, 1 << 62
        grown = self._a[place] * exp(self.rate * (self.edges[place] - deadline + origin))
        until = deadline - ceil(self.edges[place])
        return grown * self.weight, self._b[place] * self.weight, until
