"""`tenantdl simulate`: policies on a workload in virtual time; rows, a journal, plots."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from tenantdl.bench.envelope import write_results
from tenantdl.documents import write_document
from tenantdl.errors import UserError
from tenantdl.load.published import published
from tenantdl.load.workload import Workload, load_workload
from tenantdl.sched.journal import entry_line, header_line
from tenantdl.sched.messages import Command, Event
from tenantdl.sched.policies.names import split_names
from tenantdl.sim.machines import load_machine
from tenantdl.sim.search import find_all
from tenantdl.sim.simulate import REQUESTS, Result, Row, Scenario, scheduler_config
from tenantdl.sim.simulate import run as simulate
from tenantdl.units import Ns

VARIED = ("contention", "overheads", "scaling")
OVERHEADS = ("handover_us", "boundary_us", "resize_us", "conflict_us", "migrate_us")


@dataclass(frozen=True, slots=True)
class Simulated:
    """`rows`: one a policy and seed, `plots`: files that were drawn."""

    workload: Workload
    rows: list[Row]
    plots: list[Path]


def run(
    workload: Workload | str | os.PathLike[str],
    *,
    machine: str = "64-core",
    policies: str | None = None,
    rate: float | None = None,
    find_qps: float | None = None,
    each: bool = False,
    seeds: int = 1,
    requests: int = REQUESTS,
    jobs: int = 1,
    vary: Sequence[str] = (),
    json: Path | None = None,
    journal: Path | None = None,
    plots: Path | None = None,
    command: str = "tenantdl simulate",
) -> Simulated:
    """Simulate `workload` under each of `policies` (names with commas between; default: the
    workload's) with `seeds` seeds from the workload's on. `find_qps`: at the highest rate with this
    share of requests in time (`each`: of every tenant's), else at `rate`. `vary`: see `varied`.
    Raises UserError."""
    if not isinstance(workload, Workload):
        workload = load_workload(Path(workload))
    workload = published(workload)
    names = split_names(policies or workload.scheduler.policy)
    first = workload.load.seed
    scenarios = [
        varied(
            Scenario(
                workload=workload,
                machine=load_machine(machine),
                policy=name,
                rate=workload.load.rate if rate is None else rate,
                seed=seed,
                requests=requests,
            ),
            vary,
        )
        for name in names
        for seed in range(first, first + seeds)
    ]
    if journal is not None and (len(scenarios) > 1 or find_qps is not None):
        raise UserError("a journal is of one run: one policy, one seed, no search")
    if find_qps is not None:
        results = find_all(scenarios, find_qps, jobs, each=each)
        rows = [result.row(result.scenario.rate) for result in results]
    else:
        results = [_run(scenario, journal) for scenario in scenarios]
        rows = [result.row() for result in results]
    if json is not None:
        write_results(json, rows, command=command, seed=first)
    drawn = _draw(results, plots, command) if plots is not None else []
    return Simulated(workload, rows, drawn)


def varied(scenario: Scenario, changes: Sequence[str]) -> Scenario:
    """The scenario with parts of the world multiplied, as in `contention=1.5`: `contention` of the
    machine, its `overheads`, or `scaling`, the part of modelled layer times that more cores do not
    shorten. Raises UserError."""
    for change in changes:
        name, _, text = change.partition("=")
        try:
            factor = float(text)
        except ValueError:
            factor = -1.0
        if name not in VARIED or not 0 <= factor <= 10:
            known = ", ".join(VARIED)
            raise UserError(f"{change!r} is not one of {known} with =FACTOR", where="--vary")
        machine = scenario.machine
        if name == "scaling":
            scenario = dataclasses.replace(scenario, scale=scenario.scale * factor)
        else:
            fields = (name,) if name == "contention" else OVERHEADS
            new = {field: getattr(machine, field) * factor for field in fields}
            machine = msgspec.structs.replace(machine, **new)
            scenario = dataclasses.replace(scenario, machine=machine)
    return scenario


def _run(scenario: Scenario, journal: Path | None) -> Result:
    if journal is None:
        return simulate(scenario)
    lines = [header_line(scheduler_config(scenario))]

    def note(now: Ns, event: Event, commands: list[Command]) -> None:
        lines.append(entry_line(now, event, commands))

    result = simulate(scenario, observer=note)
    write_document(journal, b"".join(lines))
    return result


def _draw(results: Sequence[Result], folder: Path, command: str) -> list[Path]:
    # Matplotlib is slow to import.
    from tenantdl.bench.simulation_plots import draw

    return draw([result.scenario for result in results], folder, command)
