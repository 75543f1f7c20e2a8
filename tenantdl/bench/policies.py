"""`bench policies`: workloads × policies on the real daemon, one after the other; and, beside each
run, what the simulator says of the same workload, policy, rate and seed on this machine's file.

The simulator takes the bundles' segment costs for one core and knows nothing of HTTP, of the client
or of neighbours outside; the errors say how much that is.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tenantdl.api import Progress
from tenantdl.bench import qos
from tenantdl.bench.envelope import write_results
from tenantdl.exec.lane_pool import BACKEND
from tenantdl.load.published import on_bundles
from tenantdl.load.workload import Workload, load_workload
from tenantdl.sched.policies.names import split_names
from tenantdl.sim.machines import load_machine
from tenantdl.sim.simulate import Scenario
from tenantdl.sim.simulate import run as simulate

Row = dict[str, Any]


def run(
    workloads: Sequence[Workload | str | os.PathLike[str]],
    *,
    policies: str,
    rate: float | None = None,
    duration_s: float | None = None,
    machine: str | None = None,
    json: Path | None = None,
    command: str = "tenantdl bench policies",
    backend: str = BACKEND,
    progress: Progress = lambda phase, part: None,
) -> list[Row]:
    """Rows of one workload, policy and tenant each (tenant "all" for all of them), with the
    simulator's figures under `simulated_…` where `machine` names its machine. `progress` is told
    what comes next. Raises UserError."""
    names = split_names(policies)
    rows: list[Row] = []
    loaded = [w if isinstance(w, Workload) else load_workload(Path(w)) for w in workloads]
    for place, workload in enumerate(loaded):
        for turn, name in enumerate(names):
            part = (place + turn / len(names)) / len(loaded)
            progress(f"{workload.name}: {name}", part)
            result = qos.run(
                workload, rate=rate, duration_s=duration_s, policy=name, backend=backend
            )
            beside = simulated(result.workload, machine) if machine else {}
            rows += [_beside(row, beside.get(row["tenant"], {})) for row in result.rows]
    if json is not None:
        write_results(json, rows, command=command, seed=None)
    return rows


def _beside(row: Row, simulated: Row) -> Row:
    """Both, and by how much the simulator is off: percentiles in parts of the measured ones,
    attainment in parts of all requests."""
    errors: Row = {}
    for name in ("p50", "p95"):
        real, guess = row.get(f"{name}_ms"), simulated.get(f"simulated_{name}_ms")
        if real and guess is not None:
            errors[f"error_{name}"] = round(guess / real - 1, 4)
    if simulated and row["attainment"] is not None:
        errors["error_attainment"] = round(simulated["simulated_attainment"] - row["attainment"], 4)
    return row | simulated | errors


def simulated(workload: Workload, machine: str) -> dict[str, Row]:
    """The simulator's percentiles and attainment by tenant, and of all."""
    total = sum(workload.rates().values())
    scenario = Scenario(
        workload=on_bundles(workload),
        machine=load_machine(machine),
        policy=workload.scheduler.policy,
        rate=workload.load.rate,
        seed=workload.load.seed,
        requests=max(1, round(total * workload.load.duration_s)),
    )
    result = simulate(scenario)
    every = [value for values in result.latencies_ms.values() for value in values]
    rows = {qos.ALL: _figures(every, result.attainment)}
    for name, values in result.latencies_ms.items():
        rows[name] = _figures(values, result.by_tenant[name])
    return rows


def _figures(latencies_ms: list[float], attainment: float) -> Row:
    p50, p95 = (
        round(float(np.percentile(latencies_ms, q)), 4) if latencies_ms else None for q in (50, 95)
    )
    return {
        "simulated_p50_ms": p50,
        "simulated_p95_ms": p95,
        "simulated_attainment": attainment,
    }
