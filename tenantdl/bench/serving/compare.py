"""`bench qos --target …`: the same workload, trace and client against several servers in turns.

For every run and target: start the server, warm it up with single requests, then search for the
highest rates at which 95 % and 99 % of *every tenant's* requests meet their target. Targets take
turns within a run, so that a slow phase of the machine hits all; each run has a seed of its own.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

import msgspec
import numpy as np

from tenantdl.bench.envelope import write_results
from tenantdl.bench.serving import models, simulated
from tenantdl.bench.serving.partition import Demand, best_partition
from tenantdl.bench.serving.probe import Probe, alone, probe
from tenantdl.bench.serving.rows import SHARES, Row, earlier_rates, found_row, said
from tenantdl.bench.serving.search import Found, find_rates
from tenantdl.bench.serving.targets import (
    PARTITIONED,
    SIMULATED,
    TARGETS,
    Served,
    Setup,
    check_target,
)
from tenantdl.errors import UserError, nearest
from tenantdl.exec.lane_pool import BACKEND
from tenantdl.ids import CoreId
from tenantdl.load.workload import Workload, check_workload, load_workload
from tenantdl.units import SECOND

# Where a search begins: at this part of what would fill the cores if requests came one by one.
_START = 0.6
_STRIDE = 4


class Drive(Protocol):
    """Drives a target at a rate."""

    def __call__(self, rate: float, give_up: float | None = None) -> Probe:
        """`give_up`: stop early once a tenant can no longer have this share in time."""


@dataclass(frozen=True, slots=True)
class Settings:
    """`rate`: no search, only this rate. `step`: ratio of neighbouring rates. `policy`: of our
    scheduler (None: the workload's). `near`: result files of earlier runs; the search begins at
    their rates. `overload`: multiples of the rate found, to see what is left of goodput.
    `only`: tenants that send anything (none named: all). `machine`: of the simulator. `seed`: of
    the first run; the next one's is one higher."""

    targets: tuple[str, ...]
    runs: int = 3
    duration_s: float | None = None
    rate: float | None = None
    seed: int | None = None
    step: float = 1.1
    policy: str | None = None
    near: tuple[Path, ...] = ()
    overload: tuple[float, ...] = ()
    only: tuple[str, ...] = ()
    machine: str | None = None
    backend: str = BACKEND


@dataclass(slots=True)
class Session:
    """One comparison under way. `parts`: partitions that were found, by the target they are for.
    `starts`: where a search begins, by target. `simulator`: if that is a target."""

    workload: Workload
    settings: Settings
    report: Callable[[str], None]
    rows: list[Row] = field(default_factory=list)
    parts: dict[str, dict[str, tuple[CoreId, ...]]] = field(default_factory=dict)
    starts: dict[str, float] = field(default_factory=dict)
    simulator: simulated.Simulator | None = None


def run(
    workload: str | os.PathLike[str] | Workload,
    settings: Settings,
    *,
    json: Path | None = None,
    page: Path | None = None,
    command: str = "tenantdl bench qos",
    report: Callable[[str], None] = lambda text: None,
) -> list[Row]:
    """Rows of one run and target each. `json`, `page`: files to write. Raises UserError for targets
    that are not set up, before anything is measured."""
    if not isinstance(workload, Workload):
        workload = load_workload(Path(workload))
    if settings.policy is not None:
        scheduler = msgspec.structs.replace(workload.scheduler, policy=settings.policy)
        workload = msgspec.structs.replace(workload, scheduler=scheduler)
        check_workload(workload)
    for name in settings.targets:
        check_target(name)
    for name in settings.only:
        if name not in (tenants := [tenant.name for tenant in workload.tenant]):
            raise UserError(f"there is no tenant {name!r}{nearest(name, tenants)}", where="--only")
    session = Session(workload, settings, report)
    if settings.near:
        session.starts = earlier_rates(settings.near, workload.name)
    if SIMULATED in settings.targets:
        session.simulator = simulated.Simulator(workload, settings.machine)
    for number in range(settings.runs):
        turn = number % len(settings.targets)
        for name in (*settings.targets[turn:], *settings.targets[:turn]):
            if name == SIMULATED and session.simulator is not None:
                row = _simulate(session, session.simulator, number)
            else:
                row = _measure(session, name, number)
            session.rows.append(row)
            report(said(row))
            if json is not None:  # after every row: a long comparison may be cut short
                write_results(json, session.rows, command=command, seed=_seed(session, 0))
    if page is not None:
        # Matplotlib is slow to import, and only pages need it.
        from tenantdl.bench.serving.page import write_page

        write_page(page, session.rows, command)
    return session.rows


def _measure(session: Session, name: str, number: int) -> Row:
    workload, settings = session.workload, session.settings
    with TemporaryDirectory(prefix="tenantdl-bench-") as folder:
        setup = Setup(workload, Path(folder), backend=settings.backend)
        if name in PARTITIONED:
            if name not in session.parts:
                session.parts[name] = _search_partition(session, PARTITIONED[name])
            setup = Setup(workload, Path(folder), session.parts[name], settings.backend)
        with TARGETS[name](setup) as served:
            by_tenant = alone(served, workload, Path(folder))
            drive = _driver(session, served, setup, number)
            found = _rates(session, name, number, by_tenant, drive)
            overloaded = _overload(settings.overload, found, drive)
        conflicts = simulated.journal_conflicts(served.journal) if served.journal else None
        timeline = simulated.journal_timeline(served.journal) if served.journal else None
    if settings.rate is None and found.rates[SHARES[0]]:
        session.starts[name] = found.rates[SHARES[0]]
    row = _row(session, name, number, found) | {"label": "measured"}
    row |= {"alone_ms": by_tenant, "conflict_rate": conflicts, "timeline": timeline}
    row["overload"] = overloaded
    if name in session.parts:
        row["partition"] = {model: list(cores) for model, cores in session.parts[name].items()}
    return row


def _simulate(session: Session, simulator: simulated.Simulator, number: int) -> Row:
    def drive(rate: float, give_up: float | None = None) -> Probe:
        return simulator.probe(rate, _duration(session), _seed(session, number))

    by_tenant = {tally.tenant: tally.latencies_ms[0] for tally in simulator.alone()}
    found = _rates(session, SIMULATED, number, by_tenant, drive)
    row = _row(session, SIMULATED, number, found)
    row |= {"label": "simulated", "alone_ms": by_tenant}
    row["against_daemon"] = [
        simulated.errors(drive(probed["rate"]), probed)
        for other in session.rows
        if (other["target"], other["run"]) == ("daemon", number + 1)
        for probed in other["probes"]
        if not probed["stopped"]
    ]
    return row


def _driver(session: Session, served: Served, setup: Setup, number: int) -> Drive:
    def drive(rate: float, give_up: float | None = None) -> Probe:
        result = probe(
            served,
            session.workload,
            setup.folder,
            rate=rate,
            duration_s=_duration(session),
            seed=_seed(session, number),
            give_up=give_up,
            only=session.settings.only,
        )
        session.report(
            f"  {rate:.1f}/s: {result.worst:.1%} of the worst-off tenant in time"
            f"{', stopped' if result.stopped else ''}"
        )
        return result

    return drive


def _overload(factors: Sequence[float], found: Found, drive: Drive) -> list[Row]:
    """Goodput at multiples of the rate that held, beside the most that was seen at any rate."""
    base = found.rates[SHARES[0]]
    if not base:
        return []
    probes = [drive(base * factor) for factor in factors]
    peak = max(p.goodput for p in [*found.probes, *probes] if not p.stopped)
    return [
        {
            "factor": factor,
            "rate": round(p.rate, 3),
            "goodput": round(p.goodput, 3),
            "of_peak": round(p.goodput / peak, 4) if peak else None,
            "tenants": {tally.tenant: round(tally.share, 4) for tally in p.tallies},
            "core_usage": p.cores,
            "client_core_usage": p.client_cores,
        }
        for factor, p in zip(factors, probes, strict=True)
    ]


def _rates(
    session: Session,
    name: str,
    number: int,
    by_tenant: Mapping[str, float],
    drive: Drive,
) -> Found:
    """Search, or only drive the rate that was asked for."""

    def probe_or_stop(rate: float) -> Probe:
        return drive(rate, SHARES[0])

    settings = session.settings
    session.report(f"{session.workload.name}, run {number + 1}: {name}")
    if settings.rate is not None:
        result = drive(settings.rate)
        rates = {share: settings.rate if result.holds(share) else 0.0 for share in SHARES}
        return Found(rates, [result])
    start, stride = session.starts.get(name), 1
    least = 1 / _duration(session)  # a rate at which nothing is due holds whatever is served
    if start is None:
        start, stride = _guess(session.workload, by_tenant), _STRIDE
    return find_rates(
        probe_or_stop, SHARES, start=start, step=settings.step, stride=stride, least=least
    )


def _guess(workload: Workload, by_tenant: Mapping[str, float]) -> float:
    rates_at_1 = workload.rates(1.0)
    cores = len(Setup(workload, Path()).cores)
    busy = sum(rates_at_1[tenant] * ms / 1000 for tenant, ms in by_tenant.items())
    return _START * cores / max(busy, 1e-6)


def _search_partition(session: Session, stock: str) -> dict[str, tuple[CoreId, ...]]:
    """The best static partition for this workload, by what requests take on the stock target."""
    workload = session.workload
    with TemporaryDirectory(prefix="tenantdl-bench-") as folder:
        setup = Setup(workload, Path(folder))
        with TARGETS[stock](setup) as served:
            takes = alone(served, workload, Path(folder))
        streams = models.streams(
            workload, Path(folder), rate=1.0, duration_s=600.0, seed=workload.load.seed
        )
    demands: dict[str, Demand] = {}
    for model in setup.models().values():
        own = [tenant.name for tenant in model.tenants]
        times = np.sort(np.concatenate([s.times for s in streams if s.tenant in own])) / SECOND
        demands[model.name] = Demand(
            times.tolist(),
            min(takes[name] for name in own) / 1000,
            min(tenant.qos_ms for tenant in model.tenants) / 1000,
        )
    parts, rate = best_partition(demands, setup.cores, SHARES[0])
    text = ", ".join(f"{model} on {list(cores)}" for model, cores in parts.items())
    session.report(f"static partition, expected to hold {rate:.1f}/s: {text}")
    return parts


def _row(session: Session, name: str, number: int, found: Found) -> Row:
    fixed = session.settings.rate is not None
    return found_row(session.workload, name, number, found, fixed=fixed) | {
        "duration_s": _duration(session),
        "seed": _seed(session, number),
        "step": session.settings.step,
    }


def _duration(session: Session) -> float:
    return session.settings.duration_s or session.workload.load.duration_s


def _seed(session: Session, number: int) -> int:
    first = session.settings.seed
    return (session.workload.load.seed if first is None else first) + number
