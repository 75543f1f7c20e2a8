"""Batching on a daemon with compiled models: finish rate and goodput against load and SLO.

Every bundle is served to one tenant, alone. Where a bundle has several lengths, requests have
log-uniform ones, as texts and lines of print have: short ones are frequent, long ones do the work.
The SLO is a multiple of the 99th percentile of latencies alone. Policies are driven in turns.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from tenantdl.bench import batching_cases as cases
from tenantdl.bench.envelope import write_results
from tenantdl.bundle.load import read_manifest
from tenantdl.bundle.manifest import Manifest, Plan, Tensor
from tenantdl.daemon import running_daemon
from tenantdl.errors import ExecutionError
from tenantdl.load import issuer
from tenantdl.load.arrivals import Shape, poisson
from tenantdl.load.inputs import random_inputs
from tenantdl.load.issuer import Sample, Stream
from tenantdl.load.protocol import encode_request
from tenantdl.load.workload import (
    LoadSection,
    MachineSection,
    SchedulerSection,
    TenantSection,
    Workload,
    check_workload,
)
from tenantdl.machine import usable_cores
from tenantdl.units import SECOND, from_ms, to_ms, to_seconds

Row = dict[str, Any]
Progress = Callable[[str, float], None]
POLICIES = ("eager", "edf-mean", "edf-p99", "deferred", "auto")
_OK = 200
_LENGTHS = 16  # different ones of a dynamic model
_ALONE = 64  # requests one by one
_GAP_FACTOR = 3  # between these, of the longest that the manifest expects
_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Settings:
    """`multiples`: SLOs, of the 99th percentile alone; `loads`: of what the lanes can do one by
    one; each is driven for `seconds`. `policy`: the scheduler's below."""

    policies: tuple[str, ...] = POLICIES
    multiples: tuple[float, ...] = (1.5, 3.0, 5.0)
    loads: tuple[float, ...] = (0.6, 0.9, 1.2)
    seconds: float = 8.0
    seed: int = 1
    policy: str = "edf"
    cores: tuple[int, ...] = ()


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
    """Rows of all bundles (measured) and cases (simulated). Raises UserError."""
    rows: list[Row] = []
    total = len(bundles) + len(simulated)
    for case in simulated:
        cases.check_case(case)
    for number, case in enumerate(simulated):
        if progress:
            progress(case, number / total)
        if case in cases.STATIC:
            rows += cases.static_rows(case, cases.STATIC_POLICIES, settings.seed)
        else:
            rows += cases.mode_rows(
                case, cases.MODE_POLICIES, settings.multiples, settings.loads, settings.seed
            )
    for number, bundle in enumerate(bundles, len(simulated)):
        if progress:
            progress(str(bundle), number / total)
        rows += _bundle(bundle, settings)
    if json is not None:
        write_results(json, rows, command=command, seed=settings.seed)
    if plots is not None:
        from tenantdl.bench.batching_plots import draw

        draw(rows, plots, command)
    return rows


def request_plans(manifest: Manifest, seed: int) -> list[tuple[Tensor, ...]]:
    """Inputs of the different requests that the model is asked with, equally often."""
    single = [plan for plan in manifest.plans if plan.batch == manifest.plans[0].batch]
    if len(single) == 1:
        return [single[0].inputs]
    rng = np.random.default_rng(seed)
    sizes = sorted(_length(plan) for plan in single)
    drawn = np.exp(rng.uniform(np.log(sizes[0] / 2), np.log(sizes[-1]), _LENGTHS))
    if manifest.padding is None:
        drawn = np.array([min((s for s in sizes if s >= d), default=sizes[-1]) for d in drawn])
    return [_of_length(single, manifest, max(1, int(d))) for d in drawn]


def _length(plan: Plan) -> int:
    return max(int(np.prod(tensor.shape, dtype=np.int64)) for tensor in plan.inputs)


def _of_length(plans: Sequence[Plan], manifest: Manifest, size: int) -> tuple[Tensor, ...]:
    plan = min((p for p in plans if _length(p) >= size), key=_length)
    if manifest.padding is None:
        return plan.inputs
    share = size / _length(plan)
    cut: list[Tensor] = []
    for tensor in plan.inputs:
        shape = list(tensor.shape)
        for name, axis in manifest.padding.inputs:
            if name == tensor.name:
                shape[axis] = max(1, round(shape[axis] * share))
        cut.append(Tensor(tensor.name, tensor.dtype, tuple(shape), 0))
    return tuple(cut)


def _bundle(bundle: Path, settings: Settings) -> list[Row]:
    manifest = read_manifest(bundle)
    cores = settings.cores or tuple(usable_cores())
    with TemporaryDirectory(prefix="tenantdl-batching-") as folder:
        requests = request_plans(manifest, settings.seed)
        streams = [
            _stream(manifest.name, tensors, Path(folder, f"{i}.body"), settings.seed + i)
            for i, tensors in enumerate(requests)
        ]
        alone = _alone(bundle, manifest, streams, settings, cores)
        p99, capacity = float(np.percentile(alone, 99)), len(cores) * 1000 / float(alone.mean())
        rows = []
        for multiple in settings.multiples:
            for policy in settings.policies:
                served = _workload(bundle, settings, cores, policy, multiple * p99)
                with running_daemon(served) as daemon:
                    for load in settings.loads:
                        samples = _drive(daemon.url, streams, load * capacity, settings)
                        row = _row(manifest.name, policy, samples, multiple * p99, settings)
                        about = {"slo_multiple": multiple, "load": load, "rate": load * capacity}
                        rows.append(row | about | {"p99_alone_ms": p99})
    return rows


def _stream(model: str, tensors: Sequence[Tensor], file: Path, seed: int) -> Stream:
    body, header_length = encode_request(random_inputs(tensors, seed), {})
    file.write_bytes(body)
    return Stream(model, f"/v2/models/{model}/infer", str(file), header_length, [])


def _workload(
    bundle: Path, settings: Settings, cores: Sequence[int], batching: str, qos_ms: float
) -> Workload:
    tenant = TenantSection(
        name="tenant",
        qos_ms=qos_ms,
        bundle=str(bundle.resolve()),
        queue_max=1024,
        timeout_ms=1000 * _TIMEOUT_S,
        batching=batching,
    )
    workload = Workload(
        tenant=(tenant,),
        machine=MachineSection(cores=tuple(cores)),
        scheduler=SchedulerSection(policy=settings.policy, refuse_infeasible=True),
        load=LoadSection(),
    )
    check_workload(workload)
    return workload


def _alone(
    bundle: Path,
    manifest: Manifest,
    streams: Sequence[Stream],
    settings: Settings,
    cores: Sequence[int],
) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Latencies one by one, ms, every kind of request equally often; the first of each is cold."""
    single = [plan for plan in manifest.plans if plan.batch == manifest.plans[0].batch]
    longest = max(sum(s.cost_ns for s in plan.segments) for plan in single)
    gap = _GAP_FACTOR * longest + SECOND // 100
    rounds = 1 + max(3, _ALONE // len(streams))
    times = {i: [(r * len(streams) + i) * gap for r in range(rounds)] for i in range(len(streams))}
    with running_daemon(_workload(bundle, settings, cores, "off", 1e5)) as daemon:
        samples = _issue(daemon.url, streams, times)
    warm = [s for s in samples if s.scheduled >= len(streams) * gap]
    if any(sample.status != _OK for sample in samples):
        raise ExecutionError(f"{manifest.name}: a request alone was not answered")
    return np.array([to_ms(sample.latency) for sample in warm])


def _drive(url: str, streams: Sequence[Stream], rate: float, settings: Settings) -> list[Sample]:
    """Poisson arrivals; those of the first quarter, which find out what is what, do not count."""
    rng = np.random.default_rng(settings.seed)
    warm_up = settings.seconds / 4
    due = poisson(rate, settings.seconds + warm_up, rng, Shape())
    kinds = rng.integers(0, len(streams), len(due))
    samples = _issue(url, streams, {i: due[kinds == i].tolist() for i in range(len(streams))})
    return [sample for sample in samples if to_seconds(sample.scheduled) >= warm_up]


def _issue(url: str, streams: Sequence[Stream], times: Mapping[int, list[int]]) -> list[Sample]:
    chosen = [
        Stream(s.tenant, s.path, s.body, s.header_length, times[i]) for i, s in enumerate(streams)
    ]
    return issuer.issue(issuer.Plan(url, chosen, in_flight_max=1024, timeout_s=_TIMEOUT_S))


def _row(
    case: str, policy: str, samples: Sequence[Sample], slo_ms: float, settings: Settings
) -> Row:
    slo = from_ms(slo_ms)
    good = sum(sample.status == _OK and sample.latency <= slo for sample in samples)
    delays = [to_ms(sample.delay) for sample in samples]
    return {
        "experiment": "batching",
        "label": "measured",
        "case": case,
        "policy": policy,
        "requests": len(samples),
        "finish_rate": good / max(1, len(samples)),
        "goodput": good / settings.seconds,
        "slo_ms": slo_ms,
        "issue_delay_p95_ms": float(np.percentile(delays, 95)) if delays else None,
    }
