"""Harpagon as its paper has it: scheduling one module within a latency budget (§3), and the parts
that its evaluation takes away one by one.

`Rules` say which parts are in use. Nothing here looks for the optimum: `search` does.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from tenantdl.plan.module import LATENCIES, ModulePlan, Tier, plan_of
from tenantdl.plan.profile import Configuration, Table, ordered, tied

_WHOLE = 1e-9
_FORGIVEN = 1 + 1e-9


@dataclass(frozen=True, slots=True)
class Rules:
    """`dispatch`: how batches are formed. `tuples_max`: configurations a module may mix (None: any
    number). `dummy`: requests that do not exist may be added. `reassign`: leftover slack goes back
    to modules. `merger`: parallel siblings move together when latency is split. `cost_direct`: the
    last steps of the split go by cost rather than cost over latency."""

    dispatch: Literal["batch-aware", "round-robin"] = "batch-aware"
    tuples_max: int | None = None
    dummy: bool = True
    reassign: bool = True
    merger: bool = True
    cost_direct: bool = True


PAPER = Rules()
ABLATIONS: dict[str, Rules] = {
    "harpagon-2d": replace(PAPER, dispatch="round-robin"),
    "harpagon-1-tuple": replace(PAPER, tuples_max=1),
    "harpagon-2-tuple": replace(PAPER, tuples_max=2),
    "harpagon-no-dummy": replace(PAPER, dummy=False),
    "harpagon-no-reassign": replace(PAPER, reassign=False),
    "harpagon-no-merger": replace(PAPER, merger=False),
    "harpagon-no-cost-direct": replace(PAPER, cost_direct=False),
}


def schedule(table: Table, rate: float, budget_s: float, rules: Rules = PAPER) -> ModulePlan | None:
    """Machines for `rate` requests a second within a latency budget, or None if it cannot be kept.

    Descending the ratios, each configuration whose d + b/w keeps the budget gets as many full
    machines as the rate that is left fills, and a fraction for the rest if that keeps it too.
    """
    best = _cheapest(table, rate, budget_s, rules)
    if not rules.dummy:
        return best
    for total in _totals(ordered(table), rate, budget_s, rules):
        raised = _cheapest(table, total, budget_s, rules)
        if raised is not None and (best is None or raised.cost < best.cost * (1 - _WHOLE)):
            best = plan_of(rate, raised.tiers, LATENCIES[rules.dispatch])
    return best


def _cheapest(table: Table, rate: float, budget_s: float, rules: Rules) -> ModulePlan | None:
    entries = ordered(entry for entry in table if entry.duration_s < budget_s)
    if rules.tuples_max is None:
        return _plan(entries, rate, budget_s, rules)
    best = None
    for size in range(1, rules.tuples_max + 1):
        for subset in itertools.combinations(entries, size):
            plan = _plan(subset, rate, budget_s, rules)
            if plan is not None and (best is None or plan.cost < best.cost):
                best = plan
    return best


def _plan(
    entries: Sequence[Configuration], rate: float, budget_s: float, rules: Rules
) -> ModulePlan | None:
    tiers, left = _fill(entries, rate, budget_s, rules)
    return None if left > 0 else plan_of(rate, tiers, LATENCIES[rules.dispatch])


def _fill(
    entries: Sequence[Configuration], rate: float, budget_s: float, rules: Rules
) -> tuple[list[Tier], float]:
    """Tiers in descending ratio, and the rate that found no place."""
    tiers: list[Tier] = []
    left = entering = rate
    for number, entry in enumerate(entries):
        if number == 0 or not tied(entries[number - 1], entry):
            entering = left
        if not _in_time(entry, entering, budget_s, rules):
            continue
        full = int(left / entry.throughput + _WHOLE)
        left -= full * entry.throughput
        if left <= _WHOLE * entry.throughput:
            tiers.append(Tier(entry, full))
            return tiers, 0.0
        if entry.duration_s + entry.batch / left <= budget_s * _FORGIVEN:
            tiers.append(Tier(entry, full, left / entry.throughput))
            return tiers, 0.0
        if full:
            tiers.append(Tier(entry, full))
    return tiers, left


def _in_time(entry: Configuration, rate: float, budget_s: float, rules: Rules) -> bool:
    if rules.dispatch == "round-robin":
        return 2 * entry.duration_s <= budget_s * _FORGIVEN or (
            rate < entry.throughput and entry.duration_s + entry.batch / rate <= budget_s
        )
    return entry.duration_s + entry.batch / rate <= budget_s * _FORGIVEN


def _totals(table: Table, rate: float, budget_s: float, rules: Rules) -> list[float]:
    """Rates with dummies worth trying: those that fill one machine more of some tier, and those
    that let some tier keep the budget."""
    totals = set()
    left = rate
    for entry in table:
        if entry.duration_s >= budget_s:
            continue
        need = entry.batch / (budget_s - entry.duration_s)
        full = int(left / entry.throughput + _WHOLE)
        rest = left - full * entry.throughput
        above = rate - left
        totals |= {above + (full + 1) * entry.throughput, above + need}
        totals |= {above + full * entry.throughput + need}
        if _in_time(entry, left, budget_s, rules):
            left = rest
        if left <= 0:
            break
    return sorted(total for total in totals if rate * (1 + _WHOLE) < total)
