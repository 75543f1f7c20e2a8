"""The transforms of Winograd (Toom-Cook) convolution F(m, r): m outputs of r taps from m + r − 1
products (Lavin & Gray, arXiv:1509.09308), one dimension at a time, for any m and r.

Outputs are a polynomial product evaluated at small points (0, ±1, ±2, ±½ and infinity):
y = Aᵀ [(G g) ⊙ (Bᵀ d)]. Rows of points ±p share their even and odd parts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

import numpy as np

from tenantdl.compile.graph import Array
from tenantdl.compile.kernels.emit import Value
from tenantdl.compile.kernels.vmath import VectorMath

_POINTS = tuple(Fraction(n, 2) for n in (0, 2, -2, 4, -4, 1, -1))
POINTS_MAX = len(_POINTS) + 1
_Row = tuple[Fraction, ...]


@dataclass(frozen=True, slots=True)
class Transform:
    """F(m, r) along one axis; F(1, 1) does nothing."""

    m: int
    r: int

    @property
    def points(self) -> int:
        """Products for m outputs, and input pixels of a tile."""
        return self.m + self.r - 1

    def weights(self) -> Array:
        """G, float64 [points][r]."""
        rows = []
        for p in self._finite:
            scale = Fraction(1)
            for other in self._finite:
                scale *= p - other if other != p else 1
            rows.append([float(p**k / scale) for k in range(self.r)])
        rows.append([0.0] * (self.r - 1) + [1.0])
        return np.array(rows)

    def input(self, math: VectorMath, d: Sequence[Value]) -> list[Value]:
        """Bᵀ d."""
        if self.points == 1:
            return list(d)
        rows = _input_rows(self)
        out: list[Value] = []
        for i, row in enumerate(rows):
            if self._shares(i):
                even = math.bind(_dot(math, [c if k % 2 == 0 else 0 for k, c in enumerate(row)], d))
                odd = math.bind(_dot(math, [c if k % 2 else 0 for k, c in enumerate(row)], d))
                flipped = rows[i + 1][::2] != row[::2]
                out += [even + odd, odd - even if flipped else even - odd]
            elif not self._shares(i - 1):
                out.append(_dot(math, row, d))
        return out

    def output(self, math: VectorMath, z: Sequence[Value]) -> list[Value]:
        """Aᵀ z: m values."""
        if self.points == 1:
            return list(z)
        terms: list[tuple[Fraction, Value, Value]] = []  # a point, Σ and Δ of z at ± that point
        for i, p in enumerate(self._finite):
            if self._second_of_pair(i + 1):
                terms.append((p, math.bind(z[i] + z[i + 1]), math.bind(z[i] - z[i + 1])))
            elif not self._second_of_pair(i):
                terms.append((p, z[i], z[i]))
        out = []
        for k in range(self.m):
            values = [(plus if k % 2 == 0 else minus) for _, plus, minus in terms]
            factors = [p**k for p, _, _ in terms]
            if k == self.m - 1:
                values, factors = [*values, z[-1]], [*factors, Fraction(1)]
            out.append(_dot(math, factors, values))
        return out

    @property
    def input_operations(self) -> int:
        """Vector operations of `input`, about."""
        if self.points == 1:
            return 0
        rows = list(enumerate(_input_rows(self)))
        shared = sum(self._shares(i) for i, _ in rows)
        return shared + sum(sum(map(bool, r)) - 1 for i, r in rows if not self._shares(i - 1))

    @property
    def output_operations(self) -> int:
        """Vector operations of `output`, about."""
        return 0 if self.points == 1 else self.points + self.m * (self.points // 2)

    @property
    def _finite(self) -> tuple[Fraction, ...]:
        return _POINTS[: self.points - 1]

    def _second_of_pair(self, i: int) -> bool:
        finite = self._finite
        return 0 < i < len(finite) and finite[i] == -finite[i - 1]

    def _shares(self, i: int) -> bool:
        """Whether input rows i and i + 1 are sum and difference of an even and an odd part: they
        are those of ±p, and the other points are symmetric too."""
        return self._second_of_pair(i + 1) and self.points % 2 == 0


@lru_cache(maxsize=64)
def _input_rows(transform: Transform) -> list[_Row]:
    """Bᵀ: for each point the product of (x − q) over all others, lowest power first."""
    finite = transform._finite
    rows = []
    for skipped in (*finite, None):
        row = [Fraction(1)]
        for q in finite:
            if q != skipped:
                shifted, scaled = [Fraction(0), *row], [*(-q * c for c in row), Fraction(0)]
                row = [a + b for a, b in zip(shifted, scaled, strict=True)]
        rows.append((*row, *[Fraction(0)] * (transform.points - len(row))))
    return rows


def _dot(math: VectorMath, factors: Sequence[Fraction | int], values: Sequence[Value]) -> Value:
    """Σ factor · value, a fused multiply-add each; factors of one first."""
    pairs = [(f, v) for f, v in zip(factors, values, strict=True) if f]
    pairs.sort(key=lambda pair: (pair[0] != 1, abs(pair[0]) != 1))
    factor, value = pairs[0]
    total = value if factor == 1 else value * math.const(float(factor))
    for factor, value in pairs[1:]:
        if abs(factor) == 1:
            total = total + value if factor == 1 else total - value
        else:
            total = total + value * math.const(float(factor))
        total = math.bind(total)
    return total
