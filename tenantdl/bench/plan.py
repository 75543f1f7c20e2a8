"""Planners against the proven optimum over seeded workloads, and against each other.

Rows: {"planner", "case", "cost", "optimal_cost", "millis"}, with "bound", the solver's proven lower
bound, "kind" of workload, and "modules". `cost` is None where a planner finds no plan;
`optimal_cost` None where the solver was not asked or did not finish. Costs are computed, times are
measured.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from tenantdl.api import Progress
from tenantdl.bench.envelope import write_results
from tenantdl.bench.plan_cases import application, measured_tables
from tenantdl.bench.plan_merging import merging_rows
from tenantdl.plan.dag import Application, ApplicationPlan
from tenantdl.plan.exact import solve_exact
from tenantdl.plan.planners import OURS, PLANNERS

Row: TypeAlias = dict[str, Any]

# Relative. HiGHS meets constraints to about 1e-6, which moves costs by as much or a little more.
SAME = 1e-5
_WARM_UP_CASES = 8


@dataclass(frozen=True, slots=True)
class Summary:
    """Of one planner: how many cases it planned and could not plan; share of optimal ones, worst
    gap and lowest cost over the optimum (None: no optimum known); times in milliseconds; its cost
    over ours, mean and range, where both have a plan."""

    planner: str
    planned: int
    failed: int
    optimal: float | None
    gap_max: float | None
    below: float | None
    millis_median: float
    millis_p99: float
    ratio_mean: float
    ratio_min: float
    ratio_max: float


def run(
    *,
    cases: int,
    seed: int,
    first: int = 0,
    exact: bool = True,
    planners: Sequence[str] = tuple(PLANNERS),
    merging_cases: int = 0,
    json: Path | None = None,
    command: str = "",
    progress: Progress = lambda phase, done: None,
) -> list[Row]:
    """Plan `cases` applications from number `first` on with every planner, and `merging_cases` sets
    of applications for merging. Raises UserError when `json` cannot be written."""
    measured = measured_tables()
    for case in range(_WARM_UP_CASES):  # first calls import and fill caches
        PLANNERS[OURS](application(seed, case, measured))
    rows: list[Row] = []
    for case in range(first, first + cases):
        rows += case_rows(application(seed, case, measured), case, planners, exact=exact)
        progress("applications", (case + 1 - first) / cases)
    rows += merging_rows(range(first, first + merging_cases), seed, progress)
    if json is not None:
        write_results(json, rows, command=command, seed=seed)
    return rows


def case_rows(
    workload: Application, case: int, planners: Sequence[str], *, exact: bool
) -> list[Row]:
    """A row for each planner on one workload."""
    rows: list[Row] = []
    plans: list[ApplicationPlan] = []
    for name in planners:
        begin = time.perf_counter_ns()
        plan = PLANNERS[name](workload)
        millis = (time.perf_counter_ns() - begin) / 1e6
        cost = None if plan is None else plan.cost
        rows.append({"planner": name, "case": case, "cost": cost, "millis": millis})
        plans += [] if plan is None else [plan]
    optimum = bound = None
    if exact and plans:
        solved = solve_exact(workload, min(plans, key=lambda plan: plan.cost))
        if solved is not None:
            optimum, bound = solved.plan.cost, solved.bound
    common = {"optimal_cost": optimum, "bound": bound, "kind": workload.name}
    return [row | common | {"modules": len(workload.modules)} for row in rows]


def summarize(rows: Sequence[Row], against: str = OURS) -> list[Summary]:
    """A summary of each planner in `rows`."""
    ours = {row["case"]: row["cost"] for row in rows if row["planner"] == against}
    names = dict.fromkeys(row["planner"] for row in rows)
    return [_summary(name, [r for r in rows if r["planner"] == name], ours) for name in names]


def _summary(name: str, rows: Sequence[Row], ours: dict[int, float | None]) -> Summary:
    planned = [row for row in rows if row["cost"] is not None]
    gaps = np.array(
        [r["cost"] / r["optimal_cost"] - 1 for r in planned if r["optimal_cost"] is not None]
    )
    ratios = [r["cost"] / own for r in planned if (own := ours.get(r["case"])) is not None]
    millis = [row["millis"] for row in rows]
    return Summary(
        planner=name,
        planned=len(planned),
        failed=len(rows) - len(planned),
        optimal=float((gaps <= SAME).mean()) if len(gaps) else None,
        gap_max=float(gaps.max()) if len(gaps) else None,
        below=float(gaps.min()) if len(gaps) else None,
        millis_median=float(np.median(millis)),
        millis_p99=float(np.percentile(millis, 99)),
        ratio_mean=float(np.mean(ratios)) if ratios else float("nan"),
        ratio_min=min(ratios, default=float("nan")),
        ratio_max=max(ratios, default=float("nan")),
    )
