"""`bench qos`: drive a daemon with a workload's load and see which tenants get what they were
promised. Everything is measured on this machine: a real daemon, real lanes, a client over HTTP.

A request is in time if it was answered within its tenant's QoS target of its *scheduled* arrival.
Attainment is the share of all scheduled requests that were: refused, lost and dropped ones count
against it.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from tenantdl.bench.envelope import write_results
from tenantdl.bench.qos_timeline import Timeline, read_timeline
from tenantdl.daemon import running_daemon
from tenantdl.daemon.catalogue import Catalogue, open_catalogue
from tenantdl.errors import ExecutionError, UserError
from tenantdl.exec.lane_pool import BACKEND
from tenantdl.ids import TenantId
from tenantdl.load.arrivals import Shape, arrive
from tenantdl.load.inputs import random_inputs, read_inputs
from tenantdl.load.issuer import BROKEN, DROPPED, Plan, Sample, Stream, issue
from tenantdl.load.protocol import encode_request
from tenantdl.load.workload import Workload, check_workload, load_workload
from tenantdl.units import from_ms, to_ms

ALL = "all"
OK = 200
_WARM_UP, _WARM_UP_MS = range(5), 20.0
_CLIENT_TIMEOUT_S = 60.0

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Result:
    """`rows`: one a tenant, then one for all. `latencies_ms`: of answered requests, by tenant,
    ascending. `timeline`: which request ran where and when, for the busiest part of the run.
    `samples`: of all requests, in the order of their answers."""

    workload: Workload
    rows: list[Row]
    latencies_ms: dict[str, NDArray[np.float64]]
    timeline: Timeline
    command: str
    samples: Sequence[Sample] = ()


def run(
    workload: Workload | str | os.PathLike[str],
    *,
    rate: float | None = None,
    duration_s: float | None = None,
    seed: int | None = None,
    policy: str | None = None,
    json: str | os.PathLike[str] | None = None,
    report: str | os.PathLike[str] | None = None,
    journal: str | os.PathLike[str] | None = None,
    command: str = "tenantdl bench qos",
    backend: str = BACKEND,
) -> Result:
    """Start a daemon for `workload`, drive it, stop it. What is None is as in the workload.

    `rate`: requests a second of all tenants that share the load. `json`, `report`, `journal`:
    files to write (results, HTML page, the scheduler's journal). Raises UserError.
    """
    if not isinstance(workload, Workload):
        workload = load_workload(Path(workload))
    workload = _adjusted(workload, rate, duration_s, seed, policy)
    catalogue = open_catalogue(workload)
    with TemporaryDirectory(prefix="tenantdl-qos-") as folder:
        kept = Path(journal) if journal else Path(folder) / "journal.jsonl"
        streams = _streams(workload, catalogue, Path(folder))
        with running_daemon(workload, journal=kept, backend=backend) as daemon:
            _warm_up(daemon.url, streams)
            plan = Plan(
                url=daemon.url,
                streams=streams,
                in_flight_max=workload.load.in_flight_max,
                timeout_s=_CLIENT_TIMEOUT_S,
            )
            samples = issue(plan)
        timeline = read_timeline(kept, after=len(_WARM_UP) * len(streams))
    result = Result(
        workload=workload,
        rows=summarize(workload, samples),
        latencies_ms=_latencies(workload, samples),
        timeline=timeline,
        command=command,
        samples=samples,
    )
    if json:
        write_results(json, result.rows, command=command, seed=workload.load.seed)
    if report:
        # Matplotlib is slow to import, and only pages need it.
        from tenantdl.bench.report import write_report

        write_report(Path(report), result)
    return result


def summarize(workload: Workload, samples: Sequence[Sample]) -> list[Row]:
    """Rows of plain data: attainment, latency percentiles, rates; one a tenant and one for all."""
    rows = []
    for number, tenant in enumerate(workload.tenant):
        own = [sample for sample in samples if sample.stream == number]
        in_time = _in_time(own, tenant.qos_ms)
        asked = workload.rates()[tenant.name]
        rows.append(_row(workload, tenant.name, own, in_time, asked) | {"qos_ms": tenant.qos_ms})
    together = sum(row["in_time"] for row in rows)
    rows.append(_row(workload, ALL, samples, together, sum(workload.rates().values())))
    return rows


def _row(
    workload: Workload, tenant: str, samples: Sequence[Sample], in_time: int, asked: float
) -> Row:
    answered = np.array([to_ms(s.latency) for s in samples if s.status == OK])
    delays = np.array([to_ms(s.delay) for s in samples])
    refused = Counter(_outcome(sample.status) for sample in samples if sample.status != OK)
    duration = workload.load.duration_s
    return {
        "experiment": "qos",
        "label": "measured",
        "workload": workload.name,
        "policy": workload.scheduler.policy,
        "arrivals": workload.load.arrivals,
        "duration_s": duration,
        "tenant": tenant,
        "rate": asked,
        "requests": len(samples),
        "answered": len(answered),
        "in_time": in_time,
        "attainment": in_time / len(samples) if samples else None,
        "throughput": len(answered) / duration,
        "p50_ms": _percentile(answered, 50),
        "p95_ms": _percentile(answered, 95),
        "p99_ms": _percentile(answered, 99),
        "issue_delay_p95_ms": _percentile(delays, 95),
        "refused": dict(sorted(refused.items())),
    }


def _in_time(samples: Sequence[Sample], qos_ms: float) -> int:
    qos = from_ms(qos_ms)
    return sum(sample.status == OK and sample.latency <= qos for sample in samples)


def _outcome(status: int) -> str:
    return {DROPPED: "dropped by the client", BROKEN: "no answer"}.get(status, f"HTTP {status}")


def _percentile(values: NDArray[np.float64], q: float) -> float | None:
    return round(float(np.percentile(values, q)), 4) if len(values) else None


def _latencies(workload: Workload, samples: Sequence[Sample]) -> dict[str, NDArray[np.float64]]:
    return {
        tenant.name: np.sort(
            [to_ms(s.latency) for s in samples if s.stream == number and s.status == OK]
        )
        for number, tenant in enumerate(workload.tenant)
    }


def _adjusted(
    workload: Workload,
    rate: float | None,
    duration_s: float | None,
    seed: int | None,
    policy: str | None,
) -> Workload:
    given = {"rate": rate, "duration_s": duration_s, "seed": seed}
    load = msgspec.structs.replace(
        workload.load, **{key: value for key, value in given.items() if value is not None}
    )
    scheduler = workload.scheduler
    if policy is not None:
        scheduler = msgspec.structs.replace(scheduler, policy=policy)
    adjusted = msgspec.structs.replace(workload, load=load, scheduler=scheduler)
    check_workload(adjusted)
    return adjusted


def _streams(workload: Workload, catalogue: Catalogue, folder: Path) -> list[Stream]:
    """What each tenant sends and when. Every tenant has its own seed: adding one to a workload
    does not move the others' arrivals."""
    load = workload.load
    shape = Shape(load.burstiness, load.trace, load.pace)
    streams = []
    for number, (tenant, rate) in enumerate(
        zip(workload.tenant, workload.rates().values(), strict=True)
    ):
        model = catalogue.mostly(TenantId(tenant.name))
        if model is None:
            raise UserError(f"tenant {tenant.name} calls no model of this workload")
        rng = np.random.default_rng((load.seed, number))
        times = arrive(load.arrivals, rate, load.duration_s, rng, shape)
        tensors = model.plans[0].inputs
        inputs = (
            read_inputs(tenant.inputs, tensors)
            if tenant.inputs
            else random_inputs(tensors, load.seed)
        )
        body, header_length = encode_request(inputs, {"tenant": tenant.name})
        file = folder / f"{number}.body"
        file.write_bytes(body)
        path = f"/v2/models/{model.name}/infer"
        streams.append(Stream(tenant.name, path, str(file), header_length, times.tolist()))
    return streams


def _warm_up(url: str, streams: Sequence[Stream]) -> None:
    """A few requests of every tenant: caches, memory and cost estimates are not cold then, and
    requests that can never succeed are found before the run."""
    alone = [
        msgspec.structs.replace(
            stream,
            times=[from_ms(_WARM_UP_MS * (step * len(streams) + place)) for step in _WARM_UP],
        )
        for place, stream in enumerate(streams)
    ]
    most = len(streams) * len(_WARM_UP)
    samples = issue(Plan(url, alone, in_flight_max=most, timeout_s=_CLIENT_TIMEOUT_S))
    for place, stream in enumerate(streams):
        statuses = [sample.status for sample in samples if sample.stream == place]
        if OK not in statuses:
            raise ExecutionError(
                f"tenant {stream.tenant}: no warm-up request was served ({_outcome(statuses[-1])})"
            )
