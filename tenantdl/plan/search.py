"""Splitting an application's latency over its modules: our search over all modules' frontiers.

Every module's cost by budget is sampled (`curves`); then all splits of up to four modules at a time
are tried by table, where the last module takes what the others leave. The best few are polished:
latency is exchanged between modules along their structures' exact cost curves, and whatever slack
remains is offered to every module.
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
_POLISHED = 8
_CANDIDATES = 512  # cheapest splits by table, of which those with other structures are polished
_HOPELESS = 1.01  # a split that costs so much more by table is not polished
_BLOCK = 4
_ROUNDS = 4
_GOLDEN = (math.sqrt(5) - 1) / 2
_STEPS = 20
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
    """The best splits by table, cheapest first."""
    count = len(frontiers)
    places = [0] * count
    if count <= _BLOCK:
        found = _tabled(application, frontiers, places, application.order, _POLISHED)
        return [_split(frontiers, each) for each in found]
    for _ in range(_ROUNDS):
        before = list(places)
        for begin in range(count - _BLOCK + 1):
            block = application.order[begin : begin + _BLOCK]
            better = _tabled(application, frontiers, places, block, 1)
            if not better:
                return []
            places = better[0]
        if places == before:
            break
    return [_split(frontiers, places)]


def _split(frontiers: Sequence[Frontier], places: Sequence[int]) -> _Split:
    pairs = list(zip(frontiers, places, strict=True))
    return _Split(
        [float(frontier.latency[place]) for frontier, place in pairs],
        [Curve(frontier.every, int(frontier.row[place])) for frontier, place in pairs],
        [float(frontier.cost[place]) for frontier, place in pairs],
    )


def _tabled(
    application: Application,
    frontiers: Sequence[Frontier],
    fixed: Sequence[int],
    block: Sequence[int],
    count: int,
) -> list[list[int]]:
    """The `count` cheapest splits that differ in the block's modules only, as places on the
    frontiers. The module with the most points takes what the others leave."""
    taker = max(block, key=lambda module: len(frontiers[module].latency))
    free = [module for module in block if module != taker]
    most = int(_SPLITS_MAX ** (1 / max(len(free), 1)))
    points = [_thin(frontiers[module], most) for module in free]
    grids = np.meshgrid(*points, indexing="ij", sparse=True)
    shape = tuple(len(kept) for kept in points)
    place: dict[int, Ints] = dict(zip(free, grids, strict=True))
    latency: dict[int, Floats | float] = {
        m: float(frontiers[m].latency[fixed[m]]) for m in range(len(frontiers))
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
    flat = _cheapest(cost.ravel(), _CANDIDATES if count > 1 else 1)
    flat = flat[np.isfinite(cost.ravel()[flat])]
    splits = np.tile(np.array(fixed, dtype=np.intp), (len(flat), 1))
    wheres = np.unravel_index(flat, shape) if free else ()
    for module, kept, where in zip(free, points, wheres, strict=True):
        splits[:, module] = kept[where]
    splits[:, taker] = last.ravel()[flat]
    rows = np.column_stack([frontiers[m].row[splits[:, m]] for m in block])
    _, first = np.unique(rows, axis=0, return_index=True)
    return [splits[number].tolist() for number in np.sort(first)[:count]]


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
