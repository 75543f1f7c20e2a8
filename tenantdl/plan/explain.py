"""Why a plan is not cheaper, and why there is none: in words, one line each."""

from __future__ import annotations

import math

from tenantdl.plan.curves import frontier
from tenantdl.plan.dag import Application, Module, slack
from tenantdl.plan.module import ModulePlan
from tenantdl.plan.profile import Table, ordered

_HALVINGS = 30
_LONG = 1000.0  # times the shortest duration: any plan fits


def why_not_cheaper(table: Table, plan: ModulePlan, budget_s: float) -> list[str]:
    """For each configuration with a better ratio than the worst one in use: what keeps more of the
    rate from it, given the budget that the module has."""
    if not plan.tiers:
        return []
    worst = plan.tiers[-1].configuration.ratio
    used = {tier.configuration: tier for tier in plan.tiers}
    lines = []
    for entry in ordered(table):
        if entry.ratio <= worst * (1 + 1e-9):
            break
        name = f"batch {entry.batch} on {entry.hardware}"
        alone = entry.duration_s + entry.batch / plan.rate
        if entry in used and (tier := used[entry]).full:
            rest = plan.rate - sum(
                t.rate for t in plan.tiers if t.configuration.ratio >= entry.ratio
            )
            late = entry.duration_s + entry.batch / max(rest, 1e-12)
            lines.append(
                f"{name} ({entry.ratio:.3g}/s a core): {tier.full} full; the {rest:.3g}/s left"
                f" would take {_ms(late)} to form and run a batch, over {_ms(budget_s)}"
            )
        elif alone > budget_s:
            lines.append(
                f"{name} ({entry.ratio:.3g}/s a core): even with all requests a batch takes"
                f" {_ms(entry.duration_s)} + {_ms(alone - entry.duration_s)} to fill,"
                f" over {_ms(budget_s)}"
            )
        else:
            lines.append(
                f"{name} ({entry.ratio:.3g}/s a core): fits, but whole machines of it leave a rest"
                " that costs more"
            )
    return lines


def why_infeasible(application: Application) -> str:
    """The binding constraint of an application that has no plan: path, module, and by how much."""
    least = [_least(module) for module in application.modules]
    path = max(application.paths, key=lambda p: sum(least[m] for m in p))
    total = sum(least[m] for m in path)
    names = " → ".join(application.modules[m].name for m in path)
    largest = max(path, key=lambda m: least[m])
    module = application.modules[largest]
    room = slack(application, least, largest)
    words = f"{names} takes at least {_ms(total)}, over the target of {_ms(application.slo_s)}"
    words += f" by {_ms(total - application.slo_s)}"
    if len(path) > 1:
        words += (
            f"; {module.name} needs {_ms(least[largest])} of it, and {_ms(max(room, 0))} is left"
        )
    return words


def _least(module: Module) -> float:
    """The shortest latency in seconds that a module can have."""
    shortest = min(entry.duration_s for entry in module.table)
    points = frontier(module.table, module.rate, shortest * _LONG)
    if not len(points.latency):
        return shortest
    low, high = shortest, float(points.latency[0])
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if math.isfinite(points.within(middle)[0]) else (middle, high)
    return high


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.4g} ms"
