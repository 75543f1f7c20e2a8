"""Cost of one structure as a function of its latency budget, in plain floats; and the frontier of a
module: the cheapest structure for every budget."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from tenantdl.plan.profile import Table
from tenantdl.plan.structures import (
    Floats,
    Ints,
    Structures,
    spread,
    steps,
    structures,
    undominated,
)

_POINTS = 96
_WHOLE = 1e-9


class _Tier(NamedTuple):
    duration: float
    batch: float
    throughput: float


class _Figures(NamedTuple):
    """Of one row: `full` tiers (duration, batch, `fixed`); `rest`, `base`, `absorbs`; the last two
    tiers; what a request costs in the fraction, and how much more in a tier below it."""

    full: list[tuple[float, float, float]]
    rest: float
    base: float
    absorbs: bool
    last: _Tier
    above: _Tier
    price: float
    extra: float


@dataclass(frozen=True)
class Curve:
    """One structure of a module."""

    every: Structures
    row: int

    @cached_property
    def _figures(self) -> _Figures:
        every, row = self.every, self.row
        columns = every.duration, every.batch, every.throughput, every.fixed, every.per_request
        durations, batches, throughputs, fixed, prices = (one[row].tolist() for one in columns)
        tiers = list(map(_Tier, durations, batches, throughputs))
        full = [f for f in zip(durations, batches, fixed, strict=True) if f[2] < math.inf]
        absorbs = bool(every.absorbs[row])
        price = prices[-2] if absorbs else prices[-1]
        rest, base = float(every.rest[row]), float(every.base[row])
        return _Figures(full, rest, base, absorbs, tiers[-1], tiers[-2], price, prices[-1] - price)

    def cost(self, budget: float) -> float:
        """Cost within `budget` seconds; infinite where it cannot be kept."""
        z, low = self._rates(budget)
        own = self._figures
        return own.base + z * own.price + low * own.extra if z < math.inf else math.inf

    def latency(self, budget: float) -> float:
        """Latency of the plan within a budget that can be kept; see `latency_of`."""
        z, low = self._rates(budget)
        full, _, _, absorbs, last, above, _, _ = self._figures
        worst = [duration + batch / (fixed + z) for duration, batch, fixed in full]
        if not absorbs:
            worst += [last.duration + last.batch / z] if z > 0 else []
        else:
            if z > low:
                part = (z - low) % above.throughput
                whole = min(part, above.throughput - part) <= _WHOLE * above.throughput
                worst.append(above.duration + above.batch / (z if whole else part + low))
            part = low % last.throughput
            whole = min(part, last.throughput - part) <= _WHOLE * last.throughput
            worst.append(last.duration + last.batch / (low if whole else part))
        return min(max(worst), budget)

    def _rates(self, budget: float) -> tuple[float, float]:
        """(z, low) as `Structures.needs` has them."""
        full, z, _, absorbs, last, above, price, extra = self._figures
        for duration, batch, fixed in full:
            if duration >= budget:
                return math.inf, 0.0
            z = max(z, batch / (budget - duration) - fixed)
        left = budget - last.duration
        if not absorbs:
            if z < _WHOLE * last.throughput:
                return 0.0, 0.0
            z = max(z, last.batch / left) if left > 0 else math.inf
            return (z if z <= last.throughput * (1 + 1e-12) else math.inf), 0.0
        room = budget - above.duration
        if left <= 0 or room <= 0:
            return math.inf, 0.0
        own, span = last.throughput, above.throughput
        need_low, need = last.batch / left, above.batch / room
        least = _lowest(need_low, need - span, own)
        need = max(need, least)
        z = max(z, need)
        whole = math.floor((z - need) / span + _WHOLE) * span
        low = _lowest(need_low, z - whole - span, own)
        fewer, more = max(z, whole + low), whole + span + need
        if more * price + least * extra < fewer * price + low * extra:
            return more, least
        return fewer, low


def _lowest(need: float, least: float, own: float) -> float:
    least = max(least, need)
    whole = math.ceil(least / own - _WHOLE) * own
    if need > own:
        return whole
    return min(whole, need + math.ceil(max(least - need, 0.0) / own - _WHOLE) * own)


@dataclass(frozen=True)
class Frontier:
    """What a module costs by budget: points with `latency` ascending and `cost` descending, and the
    `row` of the structure behind each. Between two points the cost is the earlier one's or less."""

    every: Structures
    latency: Floats
    cost: Floats
    row: Ints

    def within(self, budget: float) -> tuple[float, Curve]:
        """Exactly: least cost within a budget, and the structure that has it."""
        cost, row = self.every.cheapest(np.array([budget]))
        return float(cost[0]), Curve(self.every, int(row[0]))

    def places(self, budgets: Floats) -> Ints:
        """Number of the last point within each budget, −1 where there is none."""
        return np.searchsorted(self.latency, budgets * (1 + 1e-12), side="right") - 1

    def finer(self, places: Ints, count: int) -> Frontier:
        """Only around some of the points: these, and `count` more on either side of each."""
        edges = np.concatenate([self.latency[:1], self.latency, self.latency[-1:]])
        below, at, above = edges[places], edges[places + 1], edges[places + 2]
        parts = steps(count + 2)[1:, None]
        budgets = [at, *(below + (at - below) * parts[:-1]), *(at + (above - at) * parts)]
        found = np.unique(np.concatenate(budgets))
        return _tightened(self.every, found, *self.every.cheapest(found))


def frontier(table: Table, rate: float, budget: float) -> Frontier:
    """The frontier of a module up to `budget` seconds, sampled; every point is a plan with just
    that latency. It has no points when there is no plan."""
    every = structures(table, rate, budget)
    shortest = min(entry.duration_s for entry in every.table)
    budgets = spread(shortest, budget, _POINTS)
    if len(every.base):
        every, costs = undominated(every, budgets)
    if not len(every.base):
        nothing = np.zeros(0)
        return Frontier(every, nothing, nothing, np.zeros(0, dtype=np.intp))
    # And where structures become as cheap as they get, which lies between samples.
    rows = np.arange(len(every.base))
    return _tightened(
        every,
        np.concatenate([budgets, np.repeat(budget, len(rows))]),
        np.concatenate([costs.min(axis=0), costs[:, -1]]),
        np.concatenate([costs.argmin(axis=0), rows]),
    )


def _tightened(every: Structures, budgets: Floats, cost: Floats, row: Ints) -> Frontier:
    """Plans of so much within some budgets, each with the latency that it has."""
    good = np.isfinite(cost)
    budgets, cost, row = budgets[good], cost[good], row[good]
    latency = np.minimum(latency_of(every, row, budgets), budgets)
    order = np.lexsort((cost, latency))
    latency, cost, row = latency[order], cost[order], row[order]
    before = np.concatenate([[np.inf], np.minimum.accumulate(cost)[:-1]])[: len(cost)]
    falls = cost < before * (1 - 1e-12)
    return Frontier(every, latency[falls], cost[falls], row[falls])


def latency_of(every: Structures, rows: Ints, budgets: Floats) -> Floats:
    """Actual latency of each row's plan within its budget."""
    order = np.argsort(every.absorbs[rows], kind="stable")
    found = np.empty(len(rows))
    found[order] = _latency(every.take(rows[order]), budgets[order])
    return found


def _latency(chosen: Structures, budgets: Floats) -> Floats:
    last = chosen.tiers.shape[1] - 1
    z, low = (value[:, 0] for value in chosen.needs(budgets[:, None]))
    own, above = chosen.throughput[:, last], chosen.throughput[:, last - 1]
    with np.errstate(divide="ignore", invalid="ignore"):
        waits = chosen.batch / (chosen.fixed + z[:, None])
        worst = np.where(chosen.fulls > 0, chosen.duration + waits, 0).max(axis=1)
        closing = np.where(z > 0, chosen.duration[:, last] + chosen.batch[:, last] / z, 0)
        rate = z - low
        part = rate - np.floor(rate / above + _WHOLE) * above
        full = chosen.duration[:, last - 1] + chosen.batch[:, last - 1] / z
        fraction = chosen.duration[:, last - 1] + chosen.batch[:, last - 1] / (part + low)
        upper = np.where(part > _WHOLE * above, np.maximum(fraction, full), full)
        part = low - np.floor(low / own + _WHOLE) * own
        lowest = np.where(part > _WHOLE * own, part, low)
        bottom = chosen.duration[:, last] + chosen.batch[:, last] / lowest
    absorbing = np.maximum(np.where(rate > 0, upper, 0), bottom)
    return np.maximum(worst, np.where(chosen.absorbs, absorbing, closing))  # type: ignore[no-any-return]
