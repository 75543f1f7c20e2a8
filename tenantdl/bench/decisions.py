"""What a decision costs: `Scheduler.handle` timed over simulated runs of growing machines and
tenants. The times are measured on this machine, the load is simulated.

One decision is one call: an event in, commands out. The cost of telling the time is left in.
"""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from tenantdl.bench.envelope import write_results
from tenantdl.load.published import published
from tenantdl.load.workload import Workload, load_workload
from tenantdl.sched import scheduler
from tenantdl.sched.journal import Entry
from tenantdl.sched.messages import Command, Event
from tenantdl.sched.policies.names import split_names
from tenantdl.sched.scheduler import Scheduler
from tenantdl.sim.machines import load_machine
from tenantdl.sim.simulate import Scenario, run, scheduler_config
from tenantdl.units import US, Ns

Row = dict[str, Any]
# Requests a second and core, so that machines of all sizes are about equally busy.
RATE_A_CORE = 3.5


def measure(
    workload: Workload | str | os.PathLike[str],
    *,
    machines: Sequence[str],
    tenants: Sequence[int],
    policies: str,
    requests: int = 400,
    rounds: int = 3,
    json: Path | None = None,
    command: str = "tenantdl bench decisions",
) -> list[Row]:
    """Rows of one policy, machine and number of tenants each. The workload's tenants are repeated
    under other names until there are so many. Of `rounds` equal replays the least time of every
    decision counts: what else the machine did meanwhile is not ours. Raises UserError."""
    if not isinstance(workload, Workload):
        workload = load_workload(Path(workload))
    workload = published(workload)
    rows = []
    for policy in split_names(policies):
        for name in machines:
            for count in tenants:
                machine = load_machine(name)
                scenario = Scenario(
                    repeated(workload, count),
                    machine,
                    policy,
                    RATE_A_CORE * machine.cores,
                    requests=requests,
                )
                times = _decisions(scenario, rounds)
                rows.append(_row(scenario, count, times))
    if json is not None:
        write_results(json, rows, command=command, seed=1)
    return rows


def repeated(workload: Workload, count: int) -> Workload:
    """`workload` with `count` tenants: its own, over and over."""
    own = workload.tenant
    chosen = [(number, own[number % len(own)]) for number in range(count)]
    tenants = tuple(msgspec.structs.replace(t, name=f"{t.name}-{number}") for number, t in chosen)
    return msgspec.structs.replace(workload, tenant=tenants)


def _decisions(scenario: Scenario, rounds: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Ns of every decision of a run."""
    entries: list[Entry] = []

    def note(now: Ns, event: Event, commands: list[Command]) -> None:
        entries.append(Entry(now, event, ()))

    run(scenario, observer=note)
    config = scheduler_config(scenario)
    best = np.full(len(entries), np.iinfo(np.int64).max)
    gc.collect()
    gc.disable()
    try:
        for _ in range(rounds):
            fresh = Scheduler(config)
            for place, entry in enumerate(entries):
                start = time.perf_counter_ns()
                fresh.handle(entry.event, entry.now)
                best[place] = min(best[place], time.perf_counter_ns() - start)
    finally:
        gc.enable()
    return best


def _row(scenario: Scenario, tenants: int, times: np.ndarray[Any, np.dtype[np.int64]]) -> Row:
    return {
        "experiment": "decisions",
        "label": "measured",
        "policy": scenario.policy,
        "compiled": not scheduler.__file__.endswith(".py"),
        "machine": scenario.machine.name,
        "cores": scenario.machine.cores,
        "tenants": tenants,
        "decisions": len(times),
        "mean_us": round(float(times.mean()) / US, 2),
        "p50_us": round(float(np.percentile(times, 50)) / US, 2),
        "p99_us": round(float(np.percentile(times, 99)) / US, 2),
        "decisions_per_s": round(1e9 / float(times.mean())),
    }
