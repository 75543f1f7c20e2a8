"""How many cores something needs: whole models, and single segments by their share of the target.

VELTAIR's budget split (its artefact): a segment may take the part of the target that it has of the
model's work; here work is the cost on the fewest cores there are costs for.
"""

from __future__ import annotations

from typing import NamedTuple

from tenantdl.sched.costs import UNDISTURBED, PlanCosts
from tenantdl.units import Ns

# Of the target, in 1/1000, that is planned for: blocks vary.
_SAFE = 920
# Needs of segments are found anew when the model got this much (1/8) faster or slower.
_DRIFT = 8
# In 1/1000 of the fastest time: the last cores bring little.
_NEARLY = 1250


class Needs(NamedTuple):
    """`average`: the fewest cores on which the whole model meets its target (Avg_C). `segments`:
    the same for each segment and its part of the target. `budgets[s]`: of segments [s, count)."""

    average: int
    segments: tuple[int, ...]
    budgets: tuple[int, ...]
    total: int


class NeedsOf:
    """Needs by plan, variant, target and slowdown, kept until costs have drifted."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, int, int, int], Needs] = {}

    def __call__(
        self, costs: PlanCosts, target: Ns, variant: int = 0, slowdown: int = UNDISTURBED
    ) -> Needs:
        """The needs of a plan. `slowdown` (1/1000) is rounded to steps of 1/8."""
        slowdown = max(UNDISTURBED, slowdown // 125 * 125)
        key = (id(costs), target, variant, slowdown)
        total = costs.at(variant, costs.counts[0]).remaining(0)
        known = self._known.get(key)
        if known is None or abs(known.total - total) * _DRIFT > total:
            known = self._known[key] = _needs(costs, target, variant, slowdown)
        return known


def fewest(costs: PlanCosts, variant: int, begin: int, end: int, budget: int) -> int:
    """The fewest cores on which segments [begin, end) take at most `budget` ns. Where none is
    enough, the fewest that are nearly as fast as the fastest."""
    times = []
    for cores in costs.counts:
        time = costs.at(variant, cores).between(begin, end)
        if time <= budget:
            return cores
        times.append(time)
    bearable = min(times) * _NEARLY // UNDISTURBED
    return next(c for c, time in zip(costs.counts, times, strict=True) if time <= bearable)


def _needs(costs: PlanCosts, target: Ns, variant: int, slowdown: int) -> Needs:
    base = costs.at(variant, costs.counts[0])
    total = max(1, base.remaining(0))
    room = target * _SAFE // slowdown
    budgets = tuple(room * base.remaining(s) // total for s in range(costs.count + 1))
    segments = tuple(
        fewest(costs, variant, s, s + 1, budgets[s] - budgets[s + 1]) for s in range(costs.count)
    )
    return Needs(fewest(costs, variant, 0, costs.count, room), segments, budgets, total)
