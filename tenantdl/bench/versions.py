"""`bench versions`: what versions and knowledge of interference are worth, simulated.

Highest rates with 95 % in time, where caches and bandwidth contend (`sim.contention`, `shared`),
for policies that know of slowdowns

  none      nothing: every version seems to be as fast as it is alone
  learned   tables exported from trees that a simulated campaign has taught
  oracle    tables made in the same way from the contention model itself: no samples, no noise

and by number of versions, relative to one (the greediest).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tenantdl.bench.envelope import write_results
from tenantdl.errors import UserError
from tenantdl.ids import ModelId
from tenantdl.load.workload import Workload
from tenantdl.predict.export import Tables
from tenantdl.predict.model import Boosted, Predictor
from tenantdl.sched.policies.names import split_names
from tenantdl.sim.campaign import Truth, campaign, room, variants
from tenantdl.sim.machines import MachineFile, load_machine
from tenantdl.sim.profiles import KNOWN
from tenantdl.sim.search import find_all
from tenantdl.sim.simulate import Scenario
from tenantdl.sim.simulate import Tables as Told

Row = dict[str, Any]
KNOWLEDGE = ("none", "learned", "oracle")
ENCOUNTERS = 800
SHARE = 0.95
# Published gains by number of versions 1…5 (VELTAIR, figure on versions).
PUBLISHED = {1: 1.00, 2: 1.47, 3: 1.59, 4: 1.65, 5: 1.68, 6: 1.69, 7: 1.70}


def run(
    workloads: Sequence[Workload],
    *,
    machine: str,
    policies: str,
    knowledge: Sequence[str],
    versions: Sequence[int],
    seeds: int,
    requests: int,
    jobs: int = 1,
    json: Path | None = None,
    command: str = "tenantdl bench versions",
    report: Callable[[str], None] = lambda text: None,
) -> list[Row]:
    """Rows of one workload, policy, knowledge and number of versions each. Raises UserError."""
    for name in knowledge:
        if name not in KNOWLEDGE:
            raise UserError(f"knowledge {name!r} is unknown; known: {', '.join(KNOWLEDGE)}")
    file, names = load_machine(machine), split_names(policies)
    rows: list[Row] = []
    for count in versions:
        for known in knowledge:
            report(f"{count} versions, {known}")
            tables = told(file, known, count, seed=1)
            for workload in workloads:
                first = workload.load.seed
                scenarios = [
                    Scenario(
                        workload=workload,
                        machine=file,
                        policy=policy,
                        rate=workload.load.rate,
                        seed=seed,
                        requests=requests,
                        contention="shared",
                        versions=count,
                        tables=tables,
                    )
                    for policy in names
                    for seed in range(first, first + seeds)
                ]
                found = find_all(scenarios, SHARE, jobs)
                for policy in names:
                    rates = [r.scenario.rate for r in found if r.scenario.policy == policy]
                    rows.append(
                        {
                            "workload": workload.name,
                            "machine": file.name,
                            "policy": policy,
                            "knowledge": known,
                            "versions": count,
                            "qps_at_95": round(sum(rates) / len(rates), 3),
                            "qps_min": round(min(rates), 3),
                            "qps_max": round(max(rates), 3),
                            "label": "simulated",
                        }
                    )
    _relate(rows)
    if json is not None:
        write_results(json, rows, command=command, seed=1)
    return rows


def told(machine: MachineFile, knowledge: str, versions: int, seed: int) -> Told:
    """What the scheduler is told of every profiled model's versions."""
    if knowledge == "none":
        return {ModelId(name): [(0, (1000,))] * versions for name in KNOWN}
    known, shared = variants(machine, versions=versions), room(machine)
    met = campaign(machine, ENCOUNTERS, seed, versions=versions)
    samples = [sample for encounter in met for sample in encounter.samples]
    predictor: Predictor = (
        Truth(machine, versions) if knowledge == "oracle" else Boosted(samples, shared, seed)
    )
    exported = Tables(predictor, known, samples, shared).export(known)
    return {ModelId(name): table for name, table in exported.items()}


def _relate(rows: list[Row]) -> None:
    """Add each row's gain over one version of the same, where that was measured."""
    keys = ("workload", "policy", "knowledge")
    ones = {tuple(row[k] for k in keys): row["qps_at_95"] for row in rows if row["versions"] == 1}
    for row in rows:
        one = ones.get(tuple(row[k] for k in keys))
        row["gain"] = round(row["qps_at_95"] / one, 3) if one else None
        row["published_gain"] = PUBLISHED.get(row["versions"])
