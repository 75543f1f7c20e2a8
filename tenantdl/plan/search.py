"""Splitting an application's latency over its modules: our search over all modules' frontiers.

Every module's cost by budget is sampled (`curves`); then all splits of up to four modules at a time
are tried by table, where the last module takes what the others leave, and once more by a table of
more samples around the best. The best few are polished: latency is exchanged between modules along
their structures' exact cost curves, and whatever slack remains is offered to every module.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from tenantdl.plan.curves import Curve, Frontier, frontier
from tenantdl.plan.dag import Application, ApplicationPlan, slack
from tenantdl.plan.structures import Floats, Ints, structures

_SPLITS_MAX = 40_000  # tried at once by table
_POLISHED = 3
_CANDIDATES = 512  # cheapest splits by table that are looked at
_HOPELESS = 1.01  # a split that costs so much more by table is not polished
_BLOCK = 4
_NEAR, _FINER = 6, 2  # so many points are looked at more closely, by so many on either side
_ROUNDS = 4
_GOLDEN = (math.sqrt(5) - 1) / 2
_STEPS = 32
_PROBE = 1e-4  # of the target


@dataclass(slots=True)
class _Split:
    """Budgets as tight as their plans, the plans' structures, and what they cost."""

    budgets: list[float]
    curves: list[Curve]
    costs: list[float]

    @property
    def cost(self) -> float:
        return sum(self.costs)


def search(application: Application) -> ApplicationPlan | None:
    """The cheapest plan found, or None when no split keeps the target."""
    if len(application.modules) == 1:
        return _alone(application)
    shortest = [min(c.duration_s for c in module.table) for module in application.modules]
    frontiers = []
    for number, module in enumerate(application.modules):
        budget = slack(application, shortest, number)
        if budget <= shortest[number]:
            return None
        frontiers.append(frontier(module.table, module.rate, budget))
        if not len(frontiers[-1].cost):
            return None
    best: _Split | None = None
    for split in _splits(application, frontiers):
        if best is not None and split.cost > best.cost * _HOPELESS:
            break
        _polish(application, frontiers, split)
        if best is None or split.cost < best.cost:
            best = split
    if best is None:
        return None
    pairs = zip(best.curves, best.budgets, strict=True)
    plans = tuple(curve.every.plan(curve.row, budget * (1 + 1e-12)) for curve, budget in pairs)
    return ApplicationPlan(plans, "harpagon")


def _alone(application: Application) -> ApplicationPlan | None:
    """The plan of the only module: there is nothing to split."""
    module, budget = application.modules[0], application.slo_s
    every = structures(module.table, module.rate, budget)
    if not len(every.base):
        return None
    cost, row = every.cheapest(np.array([budget]))
    if not np.isfinite(cost[0]):
        return None
    return ApplicationPlan((every.plan(int(row[0]), budget * (1 + 1e-12)),), "harpagon")


def _splits(application: Application, frontiers: Sequence[Frontier]) -> list[_Split]:
    """The best splits by table, cheapest first. Where there are more modules than one table takes,
    they are tried in blocks, in turns, before the tables are made finer."""
    order, count = application.order, len(frontiers)
    blocks = [order[begin : begin + _BLOCK] for begin in range(max(count - _BLOCK, 0) + 1)]
    fixed: Ints = np.zeros(count, dtype=np.intp)
    for _ in range(_ROUNDS if len(blocks) > 1 else 0):
        before = fixed
        for block in blocks:
            splits = _tabled(application, frontiers, fixed, block)
            if not len(splits):
                return []
            fixed = splits[0]
        if (fixed == before).all():
            break
    found = [
        split for block in blocks for split in _refined(application, list(frontiers), fixed, block)
    ]
    return sorted(found, key=lambda split: split.cost)[:_POLISHED]


def _refined(
    application: Application, frontiers: list[Frontier], fixed: Ints, block: Sequence[int]
) -> list[_Split]:
    """The best splits of a block's modules, by a table of all points and by one of more points
    around the best of these."""
    found: list[_Split] = []
    for again in (True, False):
        splits = _tabled(application, frontiers, fixed, block)
        key = np.zeros(len(splits), dtype=np.int64)  # the structures that a split picks
        for module in block:
            own = frontiers[module]
            key = key * len(own.every.base) + own.row[splits[:, module]]
        _, first = np.unique(key, return_index=True)
        found += [_split(frontiers, splits[number]) for number in np.sort(first)[:_POLISHED]]
        if again and len(splits):
            for module in block:
                places, first = np.unique(splits[:, module], return_index=True)
                best = places[np.argsort(first)[:_NEAR]]
                frontiers[module] = frontiers[module].finer(np.sort(best), _FINER)
    return found


def _split(frontiers: Sequence[Frontier], places: Ints) -> _Split:
    pairs = list(zip(frontiers, places, strict=True))
    return _Split(
        [float(frontier.latency[place]) for frontier, place in pairs],
        [Curve(frontier.every, int(frontier.row[place])) for frontier, place in pairs],
        [float(frontier.cost[place]) for frontier, place in pairs],
    )


def _tabled(
    application: Application, frontiers: Sequence[Frontier], fixed: Ints, block: Sequence[int]
) -> Ints:
    """The cheapest splits that differ in the block's modules only: places on the frontiers [split,
    module]. The module with the most points takes what the others leave."""
    taker = max(block, key=lambda module: len(frontiers[module].latency))
    free = [module for module in block if module != taker]
    most = int(_SPLITS_MAX ** (1 / max(len(free), 1)))
    points = [_thin(frontiers[module], most) for module in free]
    grids = np.meshgrid(*points, indexing="ij", sparse=True)
    shape = tuple(len(kept) for kept in points)
    place: dict[int, Ints] = dict(zip(free, grids, strict=True))
    latency: dict[int, Floats | float] = {
        m: float(frontiers[m].latency[fixed[m]]) for m in range(len(frontiers)) if m not in block
    }
    latency |= {m: frontiers[m].latency[place[m]] for m in free}
    cost = np.zeros(shape)
    for module in free:
        cost = cost + frontiers[module].cost[place[module]]
    left: Floats = np.full(shape, np.inf)
    for path in application.paths:
        taken = sum(latency[m] for m in path if m != taker)
        if taker in path:
            left = np.minimum(left, application.slo_s - taken)
        else:
            cost = np.where(taken <= application.slo_s * (1 + 1e-12), cost, np.inf)
    last = frontiers[taker].places(left)
    cost = cost + np.concatenate([frontiers[taker].cost, [np.inf]])[last]
    flat = _cheapest(cost.ravel(), _CANDIDATES)
    flat = flat[np.isfinite(cost.ravel()[flat])]
    splits = np.tile(np.array(fixed, dtype=np.intp), (len(flat), 1))
    wheres = np.unravel_index(flat, shape) if free else ()
    for module, kept, where in zip(free, points, wheres, strict=True):
        splits[:, module] = kept[where]
    splits[:, taker] = last.ravel()[flat]
    return splits


def _cheapest(cost: Floats, count: int) -> Ints:
    """Numbers of the least costs, ascending."""
    if len(cost) > count:
        some = np.argpartition(cost, count - 1)[:count]
        return some[np.argsort(cost[some], kind="stable")]
    return np.argsort(cost, kind="stable")


def _thin(frontier: Frontier, most: int) -> Ints:
    """Numbers of at most so many points: the first, and those where the cost falls most."""
    if len(frontier.latency) <= most:
        return np.arange(len(frontier.latency))
    falls = np.concatenate([[-np.inf], np.diff(frontier.cost)])
    return np.sort(np.argsort(falls, kind="stable")[:most])


def _polish(application: Application, frontiers: Sequence[Frontier], split: _Split) -> None:
    """Local improvement, in place: slack is offered to every module, then exchanged."""
    for _ in range(_ROUNDS):
        before = split.cost
        for module, own in enumerate(frontiers):
            room = slack(application, split.budgets, module)
            if room > split.budgets[module] * (1 + 1e-9):
                cost, curve = own.within(room)
                if cost < split.costs[module] * (1 - 1e-12):
                    split.budgets[module] = curve.latency(room)
                    split.costs[module], split.curves[module] = cost, curve
        if len(frontiers) > 1:
            _exchange(application, split)
        if split.cost >= before * (1 - 1e-9):
            break


def _exchange(application: Application, split: _Split) -> None:
    """Move latency between modules along their cost curves, in place, where that saves."""
    curves, budgets, costs = split.curves, split.budgets, split.costs
    count = len(curves)
    for giver, first in itertools.permutations(range(count), 2):
        if not any(giver in path and first in path for path in application.paths):
            continue
        others = [first, *(m for m in range(count) if m not in (giver, first))]

        def outcome(
            budget: float, giver: int = giver, others: list[int] = others
        ) -> tuple[float, list[float]]:
            trial = list(budgets)
            trial[giver] = budget
            total = curves[giver].cost(budget)
            for module in others:
                if math.isinf(total):
                    break
                trial[module] = max(slack(application, trial, module), 0.0)
                total += curves[module].cost(trial[module])
            return total, trial

        now = sum(costs)
        for step in (-_PROBE * application.slo_s, _PROBE * application.slo_s):
            if outcome(budgets[giver] + step)[0] >= now * (1 - 1e-12):
                continue
            total, trial = _golden(outcome, budgets[giver], step, application.slo_s)
            if total < now * (1 - 1e-10):
                budgets[:] = trial
                costs[:] = [curve.cost(b) for curve, b in zip(curves, budgets, strict=True)]
            break


def _golden(
    outcome: Callable[[float], tuple[float, list[float]]], around: float, step: float, most: float
) -> tuple[float, list[float]]:
    """Least outcome from `around` in the direction of `step`: steps that widen while it falls, then
    golden sections."""
    best = outcome(around)
    near, far = 0.0, step
    while abs(far) < most:
        trial = outcome(around + far)
        if trial[0] >= best[0]:
            break
        near, best, far = far / 4, trial, far * 4
    one, two = far - _GOLDEN * (far - near), near + _GOLDEN * (far - near)
    first, second = outcome(around + one), outcome(around + two)
    for _ in range(_STEPS):
        if first[0] <= second[0]:
            far, best = two, min(best, first, key=lambda o: o[0])
            two, second = one, first
            one = far - _GOLDEN * (far - near)
            first = outcome(around + one)
        else:
            near, best = one, min(best, second, key=lambda o: o[0])
            one, first = two, second
            two = near + _GOLDEN * (far - near)
            second = outcome(around + two)
    return best
