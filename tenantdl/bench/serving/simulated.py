"""The simulator as a target: the same workload and trace in virtual time, on a file of this
machine; and what our scheduler's journal says of a real run."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tenantdl.bench import machine as measured_machine
from tenantdl.bench.qos_timeline import read_timeline
from tenantdl.bench.serving.probe import Probe, Tally
from tenantdl.load.published import on_bundles
from tenantdl.load.workload import Workload
from tenantdl.sched.journal import read
from tenantdl.sched.messages import Launch
from tenantdl.sim.machines import load_machine
from tenantdl.sim.simulate import Result, Scenario, run
from tenantdl.units import SECOND


class Simulator:
    """A workload on a machine file; without one this machine is measured first."""

    def __init__(self, workload: Workload, machine: str | None) -> None:
        """Raises UserError for a machine that is unknown."""
        if machine is None:
            with TemporaryDirectory(prefix="tenantdl-machine-") as folder:
                file = Path(folder) / "this.toml"
                measured_machine.write(measured_machine.measure(rounds=100), file)
                found = load_machine(str(file))
        else:
            found = load_machine(machine)
        self._scenario = Scenario(
            workload=on_bundles(workload),
            machine=found,
            policy=workload.scheduler.policy,
            rate=workload.load.rate,
        )

    def probe(self, rate: float, duration_s: float, seed: int) -> Probe:
        """The simulated counterpart of a probe. Raises UserError for bundles that are not there."""
        requests = max(1, round(rate * duration_s))
        scenario = dataclasses.replace(self._scenario, rate=rate, seed=seed, requests=requests)
        result = run(scenario)
        return Probe(
            rate=rate,
            duration_s=duration_s,
            tallies=tuple(_tallies(result)),
            stopped=False,
            cores=round(result.outcome.core_time / (duration_s * SECOND), 4),
            client_cores=0.0,
            begun=0,
            samples=[],
            unlike=0,
        )

    def alone(self) -> list[Tally]:
        """Every tenant at a rate at which requests hardly ever meet."""
        slow = self.probe(0.01, 100.0 * 1000, seed=1)
        return [tally for tally in slow.tallies if tally.latencies_ms]


def _tallies(result: Result) -> Iterator[Tally]:
    due: dict[str, int] = {}
    for answer in result.outcome.answers:
        name = str(answer.arrived.tenant)
        due[name] = due.get(name, 0) + 1
    for tenant in result.scenario.workload.tenant:
        latencies = result.latencies_ms[tenant.name]
        yield Tally(
            tenant=tenant.name,
            qos_ms=tenant.qos_ms,
            due=due.get(tenant.name, 0),
            in_time=round(result.by_tenant[tenant.name] * due.get(tenant.name, 0)),
            answered=len(latencies),
            latencies_ms=latencies,
        )


def errors(simulated: Probe, probed: dict[str, Any]) -> dict[str, Any]:
    """The simulator beside the daemon at one rate: relative errors of p50 and p95, and the
    difference of the worst-off tenant's share in time. How far service is from an idle machine is
    for the machine file to say (`tenantdl.bench.in_service`)."""
    row: dict[str, Any] = {"rate": probed["rate"]}
    for q in (50, 95):
        real, said = probed[f"p{q}_ms"], simulated.percentile(q)
        row[f"p{q}_error"] = round(said / real - 1, 4) if real and said else None
    row["attainment_error"] = round(simulated.worst - probed["worst"], 4)
    return row


def journal_conflicts(journal: Path) -> float:
    """Of all launches, those that got fewer cores than they should have."""
    launches = conflicts = 0
    with journal.open("rb") as lines:
        for entry in read(lines, str(journal))[1]:
            for command in entry.commands:
                if isinstance(command, Launch):
                    launches += 1
                    conflicts += len(command.cores) < command.wanted
    return round(conflicts / max(1, launches), 4)


def journal_timeline(journal: Path) -> list[dict[str, Any]]:
    """The blocks of the run's busiest quarter of a second: lane, cores, tenant, begin, end (ns from
    its start) and whether another request took the lane at its end."""
    timeline = read_timeline(journal)
    return [
        {
            "lane": int(block.lane),
            "cores": [int(core) for core in timeline.lanes[block.lane]],
            "tenant": str(block.tenant),
            "begin": block.begin,
            "end": block.end,
            "preempted": block.preempted,
        }
        for block in timeline.blocks
    ]
