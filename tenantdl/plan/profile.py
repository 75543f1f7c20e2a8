"""What a model costs to run: tuples of batch size, duration, hardware and price (Harpagon §3).

Seconds, requests a second, and a price in any one currency a unit of time. A "machine" is whatever
is bought in whole units or fractions: here, a slot of a few cores.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from tenantdl.errors import UserError

RATIO_TIE = 1e-9  # relative: ratios closer than this are equal


@dataclass(frozen=True, slots=True)
class Configuration:
    """One way to run a model: `batch` requests take `duration_s` on `hardware`, which costs `price`
    while it is held. Raises UserError for what is not positive."""

    batch: int
    duration_s: float
    hardware: str = "machine"
    price: float = 1.0

    def __post_init__(self) -> None:
        good = self.batch >= 1 and 0 < self.duration_s < math.inf and 0 < self.price < math.inf
        if not good:
            raise UserError(f"a configuration needs positive figures, not {self}")

    @property
    def throughput(self) -> float:
        """Requests a second of one machine that is never idle."""
        return self.batch / self.duration_s

    @property
    def ratio(self) -> float:
        """Throughput a unit of price: what dispatch and scheduling order by."""
        return self.throughput / self.price


Table: TypeAlias = tuple[Configuration, ...]


def ordered(table: Iterable[Configuration]) -> Table:
    """The table in descending ratio. Equal ratios: larger batches first, then by name, so that the
    order is total."""
    return tuple(sorted(set(table), key=lambda c: (-c.ratio, -c.batch, c.hardware, c.price)))


def tie_groups(table: Sequence[Configuration]) -> list[tuple[int, int]]:
    """Ranges [begin, end) of equal ratio in an ordered table."""
    groups: list[tuple[int, int]] = []
    for index, configuration in enumerate(table):
        if groups and tied(table[groups[-1][0]], configuration):
            groups[-1] = (groups[-1][0], index + 1)
        else:
            groups.append((index, index + 1))
    return groups


def tied(one: Configuration, other: Configuration) -> bool:
    """Whether two configurations have the same ratio."""
    return abs(one.ratio - other.ratio) <= RATIO_TIE * max(one.ratio, other.ratio)


def useful(table: Iterable[Configuration]) -> Table:
    """The table without entries that another of the same price beats or equals in every way: no
    larger batch, no longer duration, no smaller throughput."""
    entries = ordered(table)
    return tuple(
        entry
        for entry in entries
        if not any(_beats(other, entry) for other in entries if other is not entry)
    )


def _beats(one: Configuration, other: Configuration) -> bool:
    no_worse = (
        one.price == other.price
        and one.batch <= other.batch
        and one.duration_s <= other.duration_s
        and one.throughput >= other.throughput
    )
    return no_worse and (one.batch, one.duration_s) != (other.batch, other.duration_s)


def monotone(durations: Sequence[float]) -> list[float]:
    """Measured durations by ascending batch, where noise must not make a larger batch faster."""
    return list(itertools.accumulate(durations, max))
