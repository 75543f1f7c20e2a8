"""Batching on a daemon with compiled models: finish rate and goodput against load and SLO.

Every bundle is served to one tenant, alone or beside the others, with requests of several lengths
if it has those (`batching_requests`). The SLO is a multiple of the 99th percentile of latencies
alone, on one core. Several runs take turns: all policies once, all of them again, each time on a
fresh daemon with other arrivals.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from tenantdl.api import Progress
from tenantdl.bench import batching_cases as cases
from tenantdl.bench import batching_virtual as virtual
from tenantdl.bench.batching_requests import request_plans
from tenantdl.bench.batching_runs import summaries
from tenantdl.bench.envelope import write_results
from tenantdl.bundle.load import read_manifest
from tenantdl.bundle.manifest import Manifest, Tensor
from tenantdl.daemon import running_daemon
from tenantdl.errors import ExecutionError
from tenantdl.load import issuer
from tenantdl.load.arrivals import Shape, poisson
from tenantdl.load.inputs import random_inputs
from tenantdl.load.issuer import Sample, Stream
from tenantdl.load.protocol import encode_request
from tenantdl.load.workload import (
    MachineSection,
    SchedulerSection,
    TenantSection,
    Workload,
    check_workload,
)
from tenantdl.machine import usable_cores
from tenantdl.sched.policies.names import DEFAULT
from tenantdl.units import SECOND, from_ms, to_ms, to_seconds

Row = dict[str, Any]
POLICIES = ("eager", "edf-mean", "edf-p99", "deferred", "auto")
_OK = 200
_ALONE = 64  # requests one by one
_GAP_FACTOR = 3  # between these, of the longest that the manifest expects
_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Settings:
    """`multiples`: SLOs, of the 99th percentile alone; `loads`: of what the lanes can do one by
    one; each is driven for `seconds`, `runs` times with seeds from `seed` on. `policy`: the
    scheduler's below batching. `together`: all bundles at once. `simulate`: in virtual time, with
    the costs that bundles carry."""

    policies: tuple[str, ...] = POLICIES
    multiples: tuple[float, ...] = (1.5, 3.0, 5.0)
    loads: tuple[float, ...] = (0.6, 0.9, 1.2)
    seconds: float = 8.0
    seed: int = 1
    policy: str = DEFAULT
    cores: tuple[int, ...] = ()
    together: bool = False
    simulate: bool = False
    runs: int = 1

    @property
    def seeds(self) -> range:
        """One a run."""
        return range(self.seed, self.seed + self.runs)


def measure(
    bundles: Sequence[Path],
    simulated: Sequence[str],
    settings: Settings,
    *,
    json: Path | None = None,
    plots: Path | None = None,
    command: str = "tenantdl bench batching",
    progress: Progress | None = None,
) -> list[Row]:
    """Rows of all bundles (measured) and cases (simulated), one a run. Raises UserError."""
    rows: list[Row] = []
    total = len(bundles) + len(simulated)
    for case in simulated:
        cases.check_case(case)
    for number, case in enumerate(simulated):
        if progress:
            progress(case, number / total)
        for seed in settings.seeds:
            rows += _case(case, settings, seed)
    together = settings.together and not settings.simulate
    groups = [list(bundles)] if together else [[bundle] for bundle in bundles]
    for number, group in enumerate(groups if bundles else (), len(simulated)):
        if progress:
            progress(" ".join(map(str, group)), number / total)
        rows += _simulated(group[0], settings) if settings.simulate else _group(group, settings)
    if json is not None:
        write_results(json, rows, command=command, seed=settings.seed)
    if plots is not None:
        from tenantdl.bench.batching_plots import draw

        draw(summaries(rows), plots, command)
    return rows


def _case(case: str, settings: Settings, seed: int) -> list[Row]:
    if case in cases.STATIC:
        rows = cases.static_rows(case, cases.STATIC_POLICIES, seed)
    else:
        rows = cases.mode_rows(case, cases.MODE_POLICIES, settings.multiples, settings.loads, seed)
    return [row | {"seed": seed} for row in rows]


@dataclass(frozen=True, slots=True)
class _Served:
    """A bundle on the daemon. `alone_ms`: latencies of its requests one by one."""

    bundle: Path
    manifest: Manifest
    streams: list[Stream]
    alone_ms: np.ndarray[Any, np.dtype[np.float64]]

    @property
    def p99_ms(self) -> float:
        return float(np.percentile(self.alone_ms, 99))


def _group(bundles: Sequence[Path], settings: Settings) -> list[Row]:
    """Rows of bundles that are served together, each with an equal part of the load; and of all."""
    cores = settings.cores or tuple(usable_cores())
    with TemporaryDirectory(prefix="tenantdl-batching-") as folder:
        served = [_alone(bundle, settings, cores, Path(folder)) for bundle in bundles]
        rows = []
        for multiple, seed, policy in product(
            settings.multiples, settings.seeds, settings.policies
        ):
            workload = _workload(served, settings, cores, policy, multiple)
            with running_daemon(workload) as daemon:
                for load in settings.loads:
                    about = {"policy": policy, "slo_multiple": multiple, "load": load}
                    busy = load * len(cores)
                    found = _drive(daemon.url, served, busy, multiple, settings.seconds, seed)
                    rows += [row | about | {"seed": seed} for row in found]
    return rows


def _simulated(bundle: Path, settings: Settings) -> list[Row]:
    cores = len(settings.cores) or len(usable_cores())
    served = _Served(bundle, read_manifest(bundle), [], np.array([1.0]))
    model = virtual.model_of(bundle, _workload([served], settings, (), "off", 1.0))
    kinds = virtual.kinds_of(model, request_plans(served.manifest, settings.seed))
    served = replace(served, alone_ms=virtual.alone_ms(model, kinds))
    about = {"label": "simulated", "p99_alone_ms": served.p99_ms}
    rows = []
    for multiple, load, seed, policy in product(
        settings.multiples, settings.loads, settings.seeds, settings.policies
    ):
        rate = load * cores * 1000 / float(served.alone_ms.mean())
        workload = _workload([served], settings, (), policy, multiple)
        counted, good = virtual.run(workload, kinds, rate, settings.seconds, seed, cores)
        row = _row(served.manifest.name, rate, counted, good, settings.seconds)
        own = {"policy": policy, "slo_multiple": multiple, "load": load, "seed": seed}
        rows.append(row | own | about)
    return rows


def _stream(model: str, tensors: Sequence[Tensor], file: Path, seed: int) -> Stream:
    body, header_length = encode_request(random_inputs(tensors, seed), {})
    file.write_bytes(body)
    return Stream(model, f"/v2/models/{model}/infer", str(file), header_length, [])


def _workload(
    served: Sequence[_Served],
    settings: Settings,
    cores: Sequence[int],
    batching: str,
    multiple: float,
) -> Workload:
    tenants = tuple(
        TenantSection(
            name=one.manifest.name,
            qos_ms=multiple * one.p99_ms,
            bundle=str(one.bundle.resolve()),
            queue_max=1024,
            timeout_ms=1000 * _TIMEOUT_S,
            batching=batching,
        )
        for one in served
    )
    workload = Workload(
        tenant=tenants,
        machine=MachineSection(cores=tuple(cores)),
        scheduler=SchedulerSection(policy=settings.policy, refuse_infeasible=True),
    )
    check_workload(workload)
    return workload


def _alone(bundle: Path, settings: Settings, cores: Sequence[int], folder: Path) -> _Served:
    """Requests one by one on one core (a slot), every kind equally often; the first of each is
    cold."""
    manifest = read_manifest(bundle)
    streams = [
        _stream(manifest.name, t, folder / f"{manifest.name}-{i}.body", settings.seed + i)
        for i, t in enumerate(request_plans(manifest, settings.seed))
    ]
    single = [plan for plan in manifest.plans if plan.batch == manifest.plans[0].batch]
    longest = max(sum(s.cost_ns for s in plan.segments) for plan in single)
    gap = _GAP_FACTOR * longest + SECOND // 100
    rounds = 1 + max(3, _ALONE // len(streams))
    times = [[(r * len(streams) + i) * gap for r in range(rounds)] for i in range(len(streams))]
    served = _Served(bundle, manifest, streams, np.array([1e4]))
    with running_daemon(_workload([served], settings, cores[:1], "off", 1.0)) as daemon:
        samples = _issue(daemon.url, streams, times)
    if any(sample.status != _OK for sample in samples):
        raise ExecutionError(f"{manifest.name}: a request alone was not answered")
    warm = [to_ms(s.latency) for s in samples if s.scheduled >= len(streams) * gap]
    return replace(served, alone_ms=np.array(warm))


def _drive(
    url: str,
    served: Sequence[_Served],
    cores_busy: float,
    multiple: float,
    seconds: float,
    seed: int,
) -> list[Row]:
    """Poisson arrivals; those of the first quarter, which find out what is what, do not count."""
    rng = np.random.default_rng(seed)
    warm_up = seconds / 4
    rates = [cores_busy / len(served) * 1000 / float(one.alone_ms.mean()) for one in served]
    times: list[list[int]] = []
    owners: list[int] = []
    for number, (one, rate) in enumerate(zip(served, rates, strict=True)):
        due = poisson(rate, seconds + warm_up, rng, Shape())
        kinds = rng.integers(0, len(one.streams), len(due))
        times += [due[kinds == i].tolist() for i in range(len(one.streams))]
        owners += [number] * len(one.streams)
    samples = _issue(url, [stream for one in served for stream in one.streams], times)
    counted = [s for s in samples if to_seconds(s.scheduled) >= warm_up]
    rows = []
    for number, (one, rate) in enumerate(zip(served, rates, strict=True)):
        own = [sample for sample in counted if owners[sample.stream] == number]
        slo = from_ms(multiple * one.p99_ms)
        good = sum(sample.status == _OK and sample.latency <= slo for sample in own)
        rows.append(_row(one.manifest.name, rate, len(own), good, seconds))
        rows[-1] |= {"slo_ms": to_ms(slo), "p99_alone_ms": one.p99_ms}
    if len(served) > 1:
        names = "+".join(one.manifest.name for one in served)
        good = sum(row["in_time"] for row in rows)
        for row in rows:
            row["case"] += f" of {names}"
        rows.append(_row(names, sum(rates), len(counted), good, seconds))
    return rows


def _issue(url: str, streams: Sequence[Stream], times: Sequence[list[int]]) -> list[Sample]:
    pairs = zip(streams, times, strict=True)
    chosen = [Stream(s.tenant, s.path, s.body, s.header_length, due) for s, due in pairs]
    return issuer.issue(issuer.Plan(url, chosen, in_flight_max=1024, timeout_s=_TIMEOUT_S))


def _row(case: str, rate: float, requests: int, good: int, seconds: float) -> Row:
    return {
        "experiment": "batching",
        "label": "measured",
        "case": case,
        "rate": rate,
        "requests": requests,
        "in_time": good,
        "finish_rate": good / max(1, requests),
        "goodput": good / seconds,
    }
