"""Run times as distributions: bins with uniform density and atoms, from samples. Times in ns.

The batch of a model whose run time depends on its input takes as long as its longest member
(Orloj, arXiv 2209.00159 §4; reconstructed): the distribution of a maximum is the product of the
members' distribution functions.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from itertools import pairwise
from math import prod

from tenantdl.errors import InvariantError

BINS = 32


class Distribution:
    """Pieces [lo[i], hi[i]] in order, without overlap, `mass[i]` each; lo == hi is an atom."""

    def __init__(self, lo: Sequence[float], hi: Sequence[float], mass: Sequence[float]) -> None:
        total = sum(mass)
        if not lo or total <= 0:
            raise InvariantError("a distribution needs mass")
        self.lo = list(lo)
        self.hi = list(hi)
        self.mass = [m / total for m in mass]
        pieces = zip(self.lo, self.hi, self.mass, strict=True)
        self.mean = sum((a + b) / 2 * m for a, b, m in pieces)
        self._sums = [0.0]
        for m in self.mass:
            self._sums.append(self._sums[-1] + m)
        self._sums[-1] = 1.0

    def cdf(self, x: float) -> float:
        """P(X ≤ x)."""
        piece = bisect_right(self.lo, x) - 1
        return self._share(piece, x) if piece >= 0 else 0.0

    def below(self, x: float) -> float:
        """P(X < x)."""
        piece = bisect_left(self.lo, x) - 1
        return self._share(piece, x) if piece >= 0 else 0.0

    def _share(self, piece: int, x: float) -> float:
        lo, hi = self.lo[piece], self.hi[piece]
        if x >= hi:
            return self._sums[piece + 1]
        return self._sums[piece] + self.mass[piece] * (x - lo) / (hi - lo)

    def quantile(self, q: float) -> float:
        """The smallest x with P(X ≤ x) ≥ q, for 0 < q ≤ 1."""
        piece = min(bisect_left(self._sums, q, 1) - 1, len(self.mass) - 1)
        inside = (q - self._sums[piece]) / self.mass[piece] if self.mass[piece] else 1.0
        return self.lo[piece] + (self.hi[piece] - self.lo[piece]) * min(max(inside, 0.0), 1.0)

    def scaled(self, offset: float, factor: float) -> Distribution:
        """Of offset + factor·X, for a positive factor."""
        lo = [offset + factor * x for x in self.lo]
        hi = [offset + factor * x for x in self.hi]
        return Distribution(lo, hi, self.mass)


def from_samples(ordered: Sequence[int]) -> Distribution:
    """Of `ordered` samples: BINS bins of equally many, or fewer. Equal samples become atoms."""
    count = len(ordered)
    bins = min(BINS, count)
    cuts = [count * i // bins for i in range(bins + 1)]
    lo: list[int] = []
    hi: list[int] = []
    mass: list[int] = []
    for begin, end in pairwise(cuts):
        first, last = ordered[begin], ordered[min(end, count - 1)]
        if lo and first == last == lo[-1] == hi[-1]:
            mass[-1] += end - begin
            continue
        lo.append(first)
        hi.append(last)
        mass.append(end - begin)
    return Distribution(lo, hi, mass)


# ([(share, of a group), …], how many requests are from that mix)
Part = tuple[Sequence[tuple[float, Distribution]], int]


def product(parts: Sequence[Part]) -> Distribution:
    """Whose distribution function is Π (Σ w·F)^n over `parts` of ([(w, F), …], n), Σ w = 1."""
    members = [member for mixture, _ in parts for _, member in mixture]
    edges = sorted({edge for member in members for edge in (*member.lo, *member.hi)})
    lo: list[float] = []
    hi: list[float] = []
    mass: list[float] = []
    before = 0.0

    def piece(begin: float, end: float, until: float) -> float:
        if until > before:
            lo.append(begin)
            hi.append(end)
            mass.append(until - before)
        return max(until, before)

    for place, edge in enumerate(edges):
        before = piece(edge, edge, _value(parts, edge, Distribution.cdf))
        if place + 1 < len(edges):
            after = edges[place + 1]
            before = piece(edge, after, _value(parts, after, Distribution.below))
    return Distribution(lo, hi, mass)


def maximum(
    own: Distribution, mates: Sequence[tuple[float, Distribution]], size: int
) -> Distribution:
    """Of the longest of `size`: one of `own`, the others unknown, from the mix `mates`."""
    return product([([(1.0, own)], 1), (mates, size - 1)]) if size > 1 else own


def _value(parts: Sequence[Part], x: float, at: Callable[[Distribution, float], float]) -> float:
    return prod(sum(w * at(f, x) for w, f in mixture) ** n for mixture, n in parts)
