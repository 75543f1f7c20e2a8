"""Does a plan keep its word on the daemon? A workload planned, then served as planned and driven
with equal gaps, with Poisson arrivals, and with Poisson arrivals at less than what is planned for:
at first as the margin says that is enough in a simulation, then at ever less until every tenant has
its share.

Rows: {"tenant", "arrivals", "rate", "margin", "slo_ms", "planned_within", "within", "p95_ms",
"p99_ms"}: `planned_within` simulated with the plan's own dispatch, the others measured on the
daemon; `simulated_…` beside them are the scheduler's in the simulator, where a machine is named.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from tenantdl.bench import policies, qos
from tenantdl.bench.envelope import write_results
from tenantdl.errors import UserError
from tenantdl.exec.lane_pool import BACKEND
from tenantdl.load.applications import PlanSection
from tenantdl.load.workload import Workload
from tenantdl.plan.dag import scaled
from tenantdl.plan.margin import hold, simulated
from tenantdl.plan.simulate import constant, poisson
from tenantdl.plan.workload import WhatIf, WorkloadPlan, plan_workload

Row = dict[str, Any]

_MARGINS = (0.25, 0.5, 1.0)


def run(
    workload: Workload,
    *,
    share: float,
    duration_s: float,
    machine: str | None = None,
    json: Path | None = None,
    command: str = "",
    backend: str = BACKEND,
    report: Callable[[str], None] = lambda text: None,
) -> list[Row]:
    """Rows of every tenant and kind of arrivals. The first margin is the largest that any queue
    needs to hold `share` of simulated Poisson arrivals. Raises UserError for a workload that cannot
    be planned."""
    if not workload.tenant:
        raise UserError("no tenants to drive", where=workload.name)
    workload = msgspec.structs.replace(workload, plan=workload.plan or PlanSection())
    planned = plan_workload(workload, WhatIf())
    held = [hold(each.application, share) for each in planned.planned if each.tenants]
    margin = max((one.margin for one in held if one is not None), default=0.0)

    def driven(arrivals: str, kind: str, more: float) -> list[Row]:
        report(f"{kind}, {more:.0%}" if more else kind)
        load = _driven(workload, arrivals, more, duration_s)
        result = qos.run(load, backend=backend)
        beside = policies.simulated(load, machine) if machine else {}
        promised = _promised(planned, arrivals, more)
        return [
            {
                "tenant": row["tenant"],
                "arrivals": kind,
                "rate": row["rate"],
                "margin": more,
                "slo_ms": row["qos_ms"],
                "planned_within": promised[row["tenant"]],
                "within": row["attainment"],
                "p95_ms": row["p95_ms"],
                "p99_ms": row["p99_ms"],
            }
            | beside.get(row["tenant"], {})
            for row in result.rows
            if row["tenant"] in promised
        ]

    rows = driven("constant", "constant", 0.0)
    last = driven("poisson", "poisson", 0.0)
    rows += last
    for more in (margin, *(step for step in _MARGINS if step > margin)):
        if more and min(row["within"] for row in last) < share:
            last = driven("poisson", "poisson + margin", more)
            rows += last
    if json is not None:
        write_results(json, rows, command=command, seed=workload.load.seed)
    return rows


def _driven(workload: Workload, arrivals: str, margin: float, duration_s: float) -> Workload:
    """The tenants of a workload at less than their rates, for which is planned all the same."""
    rates = workload.rates()
    return msgspec.structs.replace(
        workload,
        application=(),
        plan=msgspec.structs.replace(workload.plan or PlanSection(), margin=margin),
        load=msgspec.structs.replace(
            workload.load, arrivals=arrivals, trace=None, duration_s=duration_s
        ),
        tenant=tuple(
            msgspec.structs.replace(t, rate=rates[t.name] / (1 + margin), share=msgspec.UNSET)
            for t in workload.tenant
        ),
    )


def _promised(planned: WorkloadPlan, arrivals: str, margin: float) -> dict[str, float]:
    """The share of each tenant's requests within the target by the plan's own dispatch."""
    process = constant if arrivals == "constant" else poisson
    found: dict[str, float] = {}
    for each in planned.planned:
        application = scaled(each.application, rate=1 / (1 + margin))
        within = simulated(application, each.plan, arrivals=process).within
        found |= {tenant.name: within for tenant in each.tenants}
    return found
