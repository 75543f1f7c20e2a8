"""All sensible ways to split a module's rate over its configurations, as arrays.

A *structure* picks up to `TIERS_MAX` configurations in descending ratio and says how many full
machines each gets: as many as its share of the rate fills, or one or two off that. One machine is a
fraction and takes what is left. It belongs to the last tier ("closing"); or to the tier above the
last ("absorbing"), and then the last tier gets just the rate that it needs to be in time.

What a structure costs within a latency budget L follows in closed form. Every tier in use must
collect b/(L − d) requests a second, the only unknown is the rate z of the fraction and all below
it, and every requirement is a lower bound of z. Where z exceeds what is left, dummies fill it up.
Ties between ratios are not counted here, so latencies err on the safe side.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from tenantdl.plan.choices import Choices, choices, thinned
from tenantdl.plan.module import ModulePlan, Tier, plan_of
from tenantdl.plan.profile import Table, ordered

Floats: TypeAlias = NDArray[np.float64]
Ints: TypeAlias = NDArray[np.intp]
Bools: TypeAlias = NDArray[np.bool_]

_WHOLE = 1e-9  # of a machine: closer to a whole number than this is whole
_SLACK = 1e-12
_RAISED_MAX = 4.0  # times the rate: dummies up to here are worth counting machines for
_RAISES_MAX = 3
_MANY_ROWS = 48  # that many are looked at for fewer budgets first
_COARSE = 5


@dataclass(frozen=True, slots=True)
class Structures:
    """Rows are structures. [row, place]: `tiers`, which configuration (the sentinel behind the last
    one: none); `fulls`, machines; `fixed`, what full machines at or below the place take (infinite:
    it has none). [row]: `rest`, rate left for the fraction and below (negative: dummies are
    needed); `base`, cost of full machines; `absorbs`: whether the last tier lies below the
    fraction; such rows come last. `figures` [configuration]: duration, batch, throughput, price of
    a request; by row and place once more."""

    table: Table
    figures: Floats
    rate: float
    tiers: Ints
    fulls: Floats
    fixed: Floats
    rest: Floats
    base: Floats
    absorbs: Bools
    duration: Floats
    batch: Floats
    throughput: Floats
    per_request: Floats

    def take(self, rows: Ints | Bools) -> Structures:
        """Some of the rows."""
        own = {name: getattr(self, name)[rows] for name in _BY_ROW}
        return Structures(self.table, self.figures, self.rate, **own)

    def needs(self, budgets: Floats) -> tuple[Floats, Floats]:
        """(z, low) [row, budget]: rate of the fraction's tier (without full machines that a closing
        structure counts) and all below it; and of the last tier below it. Infinite where a budget
        cannot be kept. `budgets` [budget], or [row, budget]."""
        last = self.tiers.shape[1] - 1
        z: Floats = np.repeat(self.rest[:, None], budgets.shape[-1], axis=1)
        low = np.zeros_like(z)
        above = need = z
        with np.errstate(divide="ignore", invalid="ignore"):
            if budgets.ndim == 1:
                every = self.figures[:, 1, None] / np.maximum(budgets - self.figures[:, :1], 0)
            for place in range(last + 1):
                tier = self.tiers[:, place]
                if budgets.ndim == 1:
                    above, need = need, every[tier]
                else:
                    left = np.maximum(budgets - self.figures[tier, :1], 0)
                    above, need = need, self.figures[tier, 1, None] / left
                # Not a number where there is no full machine to be in time.
                np.fmax(z, need - self.fixed[:, place, None], out=z)
            own = self.throughput[:, last, None]
            closing = len(self.absorbs) - int(np.count_nonzero(self.absorbs))
            if closing:
                z[:closing] = _closed(z[:closing], need[:closing], own[:closing])
            if closing < len(z):
                dearer = self.per_request[closing:, last] / self.per_request[closing:, last - 1]
                z[closing:], low[closing:] = _absorbed(
                    z[closing:],
                    above[closing:],
                    self.throughput[closing:, last - 1, None],
                    need[closing:],
                    own[closing:],
                    dearer[:, None],
                )
        return z, low

    def cheapest(self, budgets: Floats) -> tuple[Floats, Ints]:
        """Least cost within each budget (infinite: none) and its row."""
        costs = self.costs(budgets)
        row = costs.argmin(axis=0)
        return costs[row, np.arange(len(budgets))], row

    def costs(self, budgets: Floats) -> Floats:
        """Cost [row, budget]; infinite where the budget cannot be kept."""
        last = self.tiers.shape[1] - 1
        z, low = self.needs(budgets)
        part = np.where(self.absorbs, self.per_request[:, last - 1], self.per_request[:, last])
        extra = np.where(self.absorbs, self.per_request[:, last] - part, 0)
        with np.errstate(invalid="ignore"):
            cost = self.base[:, None] + z * part[:, None] + low * extra[:, None]
        cost[np.isinf(z)] = np.inf
        return cost

    def plan(self, row: int, budget: float) -> ModulePlan:
        """The plan that a row stands for within a budget that it can keep."""
        one = self.take(np.array([row]))
        z, low = (float(value[0, 0]) for value in one.needs(np.array([budget])))
        last = self.tiers.shape[1] - 1
        tiers: dict[int, Tier] = {}
        for place, (index, full) in enumerate(zip(one.tiers[0], one.fulls[0], strict=True)):
            if index == len(self.table):
                continue
            entry = self.table[int(index)]
            rate = float(full) * entry.throughput
            if one.absorbs[0] and place >= last - 1:
                rate = low if place == last else z - low
            elif place == last:
                rate += z
            machines = rate / entry.throughput
            whole = int(np.floor(machines + _WHOLE))
            part = machines - whole
            tiers[int(index)] = Tier(entry, whole, part if part > _WHOLE else 0.0)
        return plan_of(self.rate, list(tiers.values()))


_SHARED = ("table", "figures", "rate")
_BY_ROW = tuple(name for name in Structures.__dataclass_fields__ if name not in _SHARED)


def structures(table: Table, rate: float, budget: float) -> Structures:
    """Structures for a module that has `budget` seconds at most."""
    entries = thinned(tuple(entry for entry in ordered(table) if entry.duration_s < budget))
    if not entries:
        entries = ordered(table)[-1:]
    needs = [entry.batch / (budget - entry.duration_s) for entry in entries]
    raised = sorted(need for need in needs if rate < need < _RAISED_MAX * rate)
    chosen = choices(len(entries))
    parts = [_enumerate(entries, rate, total, chosen) for total in (rate, *raised[:_RAISES_MAX])]
    return parts[0] if len(parts) == 1 else _stacked(parts)


def _enumerate(table: Table, rate: float, total: float, chosen: Choices) -> Structures:
    """Structures whose machines are counted for `total` requests a second."""
    tiers, offset, absorbs = chosen
    places = tiers.shape[1]
    # The sentinel, "no configuration", stands behind the last one.
    figures = np.array(
        [
            *((e.duration_s, float(e.batch), e.throughput, 1 / e.ratio) for e in table),
            (0.0, 0.0, np.inf, 0.0),
        ]
    )
    duration, batch, throughput, per_request = figures[tiers].transpose(2, 0, 1)
    fulls = np.zeros(tiers.shape)
    left = np.full(len(tiers), total)
    good = np.ones(len(tiers), dtype=bool)
    own = np.where(np.isinf(throughput), 0, throughput)
    for place in range(places):
        count = np.floor(left / throughput[:, place] + _WHOLE) + offset[:, place]
        if place == places - 1:
            count = np.where(absorbs, 0, np.maximum(count, 0))
        else:
            part = absorbs & (place == places - 2)
            count = np.where(part, 0, count)
            good &= (count >= 1) | (tiers[:, place] == len(table)) | part
        fulls[:, place] = count
        left = left - count * own[:, place]
    taken = fulls * own
    every = Structures(
        table=table,
        figures=figures,
        rate=rate,
        tiers=tiers,
        fulls=fulls,
        fixed=np.where(fulls > 0, np.cumsum(taken[:, ::-1], axis=1)[:, ::-1], np.inf),
        rest=left - (total - rate),
        base=(taken * per_request).sum(axis=1),
        absorbs=absorbs,
        duration=duration,
        batch=batch,
        throughput=throughput,
        per_request=per_request,
    )
    return every.take(good)


def _stacked(parts: list[Structures]) -> Structures:
    joined = {name: np.concatenate([getattr(part, name) for part in parts]) for name in _BY_ROW}
    order = np.argsort(joined["absorbs"], kind="stable")
    own = {name: column[order] for name, column in joined.items()}
    return Structures(parts[0].table, parts[0].figures, parts[0].rate, **own)


def _closed(z: Floats, need: Floats, own: Floats) -> Floats:
    """Rate of a fraction of the last tier, at least z; infinite if no fraction is as large."""
    z = np.where(z < _WHOLE * own, 0, np.maximum(z, need))
    return np.where(z <= own * (1 + _SLACK), z, np.inf)


def _absorbed(
    z: Floats, need: Floats, own: Floats, need_low: Floats, own_low: Floats, dearer: Floats
) -> tuple[Floats, Floats]:
    """(z, low) where the tier above the last has full machines of rate `own`, then a fraction; the
    fraction and what lies below it take at least `need`. Either so many full machines that this
    is left, and the last tier takes over what is more than a fraction; or one machine more, and
    dummies. `dearer`: the last tier's price of a request over the other's."""
    least = _lowest(need_low, need - own, own_low)
    part = np.maximum(need, least)
    z = np.maximum(z, part)
    whole = np.floor((z - part) / own + _WHOLE) * own
    low = _lowest(need_low, z - whole - own, own_low)
    z = np.maximum(z, whole + low)
    more = whole + own + part
    better = more + least * (dearer - 1) < z + low * (dearer - 1)
    z, low = np.where(better, more, z), np.where(better, least, low)
    return np.where(np.isfinite(need + low), z, np.inf), low


def _lowest(need: Floats, least: Floats, own: Floats) -> Floats:
    """Least rate of the last tier, which collects `need` and takes at least `least`: full machines
    of rate `own`, with or without a fraction that takes `need`."""
    least = np.maximum(least, need)
    whole = np.ceil(least / own - _WHOLE) * own
    part = need + np.ceil(np.maximum(least - need, 0) / own - _WHOLE) * own
    return np.where(need <= own, np.minimum(whole, part), whole)


@lru_cache(maxsize=8)
def steps(count: int) -> Floats:
    """`count` numbers from 0 to 1, equally spaced."""
    return np.linspace(0.0, 1.0, count)


def spread(first: float, last: float, count: int) -> Floats:
    """`count` budgets from `first` to `last`, in equal ratios."""
    found: Floats = first * (last / first) ** steps(count)
    found[-1] = last
    return found


def undominated(every: Structures, budgets: Floats) -> tuple[Structures, Floats]:
    """Rows that may be the cheapest for some budget up to the last of these, with their costs
    [row, budget]. A row's cost falls with the budget, so between two of them it is at least its
    cost at the later one."""
    if len(every.base) > _MANY_ROWS:
        few = budgets[(len(budgets) - 1) % _COARSE :: _COARSE]
        every = every.take(_rivals(every.costs(few)))
    costs = every.costs(budgets)
    keep = _rivals(costs)
    return every.take(keep), costs[keep]


def _rivals(costs: Floats) -> Bools:
    best = costs.min(axis=0)
    rival = np.concatenate([[np.inf], best[:-1]]) * (1 - _SLACK)
    keep = (costs < rival) | (costs <= best * (1 + _SLACK))
    kept: Bools = (keep & np.isfinite(costs)).any(axis=1)
    return kept
