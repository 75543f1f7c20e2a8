"""Cost of one structure as a function of its latency budget, in plain floats; and the frontier of a
module: the cheapest structure for every budget."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from tenantdl.plan.profile import Table
from tenantdl.plan.structures import Floats, Ints, Structures, spread, structures, undominated

_POINTS = 96
_WHOLE = 1e-9


@dataclass(frozen=True)
class Curve:
    """One structure of a module."""

    every: Structures
    row: int

    def latency(self, budget: float) -> float:
        """Latency of the plan within a budget that can be kept."""
        return min(
            float(latency_of(self.every, np.array([self.row]), np.array([budget]))[0]), budget
        )

    @cached_property
    def _figures(self) -> tuple[list[tuple[float, float, float]], float, float, float]:
        every, row = self.every, self.row
        used = [
            (float(every.duration[row, p]), float(every.batch[row, p]), float(every.fixed[row, p]))
            for p in range(every.tiers.shape[1])
            if every.fulls[row, p] > 0
        ]
        last = every.tiers.shape[1] - 1
        part = last - 1 if every.absorbs[row] else last
        price = float(every.per_request[row, part])
        extra = float(every.per_request[row, last]) - price if every.absorbs[row] else 0.0
        return used, float(every.rest[row]), price, extra

    def cost(self, budget: float) -> float:
        """Cost within `budget` seconds; infinite where it cannot be kept."""
        used, z, price, extra = self._figures
        every, row = self.every, self.row
        for duration, batch, fixed in used:
            if duration >= budget:
                return math.inf
            z = max(z, batch / (budget - duration) - fixed)
        last = every.tiers.shape[1] - 1
        own = float(every.throughput[row, last])
        left = budget - float(every.duration[row, last])
        if not every.absorbs[row]:
            if z < _WHOLE * own:
                return float(every.base[row])
            z = max(z, float(every.batch[row, last]) / left) if left > 0 else math.inf
            return float(every.base[row]) + z * price if z <= own * (1 + 1e-12) else math.inf
        above = budget - float(every.duration[row, last - 1])
        if left <= 0 or above <= 0:
            return math.inf
        span = float(every.throughput[row, last - 1])
        need_low = float(every.batch[row, last]) / left
        need = float(every.batch[row, last - 1]) / above
        least = _lowest(need_low, need - span, own)
        need = max(need, least)
        z = max(z, need)
        whole = math.floor((z - need) / span + _WHOLE) * span
        low = _lowest(need_low, z - whole - span, own)
        fewer = max(z, whole + low) * price + low * extra
        more = (whole + span + need) * price + least * extra
        return float(every.base[row]) + min(fewer, more)


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


def frontier(table: Table, rate: float, budget: float) -> Frontier:
    """The frontier of a module up to `budget` seconds, sampled; every point is a plan with just
    that latency. It has no points when there is no plan."""
    every = undominated(structures(table, rate, budget), budget)
    if not len(every.base):
        nothing = np.zeros(0)
        return Frontier(every, nothing, nothing, np.zeros(0, dtype=np.intp))
    shortest = min(entry.duration_s for entry in every.table)
    budgets = spread(shortest, budget, _POINTS)
    cost, row = every.cheapest(budgets)
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
