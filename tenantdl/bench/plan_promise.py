"""Do plans keep their word? Seeded workloads planned, then simulated with equal gaps and with
Poisson arrivals; and what margin of rate holds a share of either in time.

Rows: {"case", "kind", "modules", "arrivals", "planned_within", "within", "max_over_slo", "margin",
"cost_ratio"}, all simulated; `cost_ratio`: of the plan with that margin over the one without.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tenantdl.api import Progress
from tenantdl.bench.plan_cases import application, measured_tables
from tenantdl.plan.margin import hold, simulated
from tenantdl.plan.search import search
from tenantdl.plan.simulate import constant, poisson

Row = dict[str, Any]


def run(
    *,
    cases: int,
    seed: int,
    share: float,
    progress: Progress = lambda phase, done: None,
) -> list[Row]:
    """Four rows a case: equal gaps and Poisson, as planned and with the margin that holds
    `share`."""
    measured = measured_tables()
    rows: list[Row] = []
    for case in range(cases):
        workload = application(seed, case, measured)
        plan = search(workload)
        progress("simulating", (case + 1) / cases)
        if plan is None:
            continue
        found = []
        for name, arrivals in (("constant", constant), ("poisson", poisson)):
            promise = simulated(workload, plan, arrivals=arrivals, seed=case)
            found.append((name, 1.0, promise, plan, 0.0))
            held = hold(workload, share, arrivals=arrivals, seed=case)
            if held is not None:
                found.append((f"{name} + margin", share, held.promise, held.plan, held.margin))
        for name, planned, promise, own, margin in found:
            rows.append(
                {
                    "case": case,
                    "kind": workload.name,
                    "modules": len(workload.modules),
                    "arrivals": name,
                    "planned_within": planned,
                    "within": promise.within,
                    "max_over_slo": promise.max_s / workload.slo_s,
                    "margin": margin,
                    "cost_ratio": own.cost / plan.cost,
                }
            )
    return rows


def summarize(rows: Sequence[Row]) -> list[Row]:
    """Means by arrivals and number of modules, and in how many cases the planned share came."""
    groups: dict[tuple[str, int], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["arrivals"], row["modules"]), []).append(row)
    return [
        {
            "arrivals": arrivals,
            "modules": modules,
            "cases": len(own),
            "within": float(np.mean([row["within"] for row in own])),
            "worst": min(row["within"] for row in own),
            "kept": float(
                np.mean([row["within"] >= min(row["planned_within"], 0.99) for row in own])
            ),
            "max_over_slo": float(np.median([row["max_over_slo"] for row in own])),
            "margin": float(np.mean([row["margin"] for row in own])),
            "cost_ratio": float(np.mean([row["cost_ratio"] for row in own])),
        }
        for (arrivals, modules), own in sorted(groups.items())
    ]
