"""`bench replacing`: versions of a model take over from one another under load at a constant rate.

The first part of the run is steady; then a new version is put into the repository and loaded every
so often. Latency counts from when a request was due. Times in ms.
"""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from tenantdl.api import Progress
from tenantdl.bench.envelope import write_results
from tenantdl.bundle.load import read_manifest
from tenantdl.daemon import running_daemon
from tenantdl.errors import ExecutionError
from tenantdl.load.client import Client
from tenantdl.load.inputs import random_inputs
from tenantdl.load.issuer import OK, Outcome, Plan, Sample, Stream, drive
from tenantdl.load.protocol import encode_request
from tenantdl.load.workload import serving
from tenantdl.units import SECOND, from_seconds, to_ms

Row = dict[str, Any]
_MODEL = "replaced"
_TIMEOUT_S = 60.0
_IN_FLIGHT_MAX = 512


@dataclass(frozen=True, slots=True)
class Settings:
    """`times` replacements, `every_s` apart, after `steady_s` without any, at `rate` requests a
    second."""

    times: int = 50
    every_s: float = 1.0
    steady_s: float = 20.0
    rate: float = 50.0


def measure(
    bundle: Path,
    settings: Settings,
    *,
    json: Path | None = None,
    command: str = "tenantdl bench replacing",
    progress: Progress = lambda phase, part: None,
) -> Row:
    """One row. Raises UserError for a bad bundle, ExecutionError when a load fails."""
    plan = read_manifest(bundle).plans[0]
    with TemporaryDirectory(prefix="tenantdl-replacing-") as folder:
        repository, body = Path(folder) / "models", Path(folder) / "body"
        _put(bundle, repository, 1)
        content, length = encode_request(random_inputs(plan.inputs, 0), {})
        body.write_bytes(content)
        with running_daemon(serving(None, {"repository": str(repository)})) as daemon:
            seconds = settings.steady_s + settings.times * settings.every_s
            count = int(seconds * settings.rate)
            times: list[int] = [from_seconds(n / settings.rate) for n in range(count)]
            stream = Stream("default", f"/v2/models/{_MODEL}/infer", str(body), length, times)
            load = Plan(daemon.url, [stream], _IN_FLIGHT_MAX, _TIMEOUT_S)
            outcome, spans = _run(load, daemon.url, bundle, repository, settings, progress)
    row = _row(bundle, settings, outcome, spans)
    if json is not None:
        write_results(json, [row], command=command, seed=0)
    return row


def _run(
    load: Plan,
    url: str,
    bundle: Path,
    repository: Path,
    settings: Settings,
    progress: Progress,
) -> tuple[Outcome, list[tuple[int, int]]]:
    """What came of the load, and when (monotonic) each replacement began and ended."""
    begun, outcomes = threading.Event(), []

    def issue() -> None:
        try:
            outcomes.append(drive(load, begun.set))
        finally:
            begun.set()

    issuing = threading.Thread(target=issue)
    issuing.start()
    client, spans = Client(url), []
    begun.wait()
    due = time.monotonic() + settings.steady_s
    for number in range(settings.times):
        progress("replacing", number / settings.times)
        time.sleep(max(0.0, due + number * settings.every_s - time.monotonic()))
        began = time.monotonic_ns()
        _put(bundle, repository, number + 2)
        client.load(_MODEL)
        shutil.rmtree(repository / _MODEL / str(number + 1))
        spans.append((began, time.monotonic_ns()))
    issuing.join()
    if not outcomes:
        raise ExecutionError("the load generator has failed")
    return outcomes[0], spans


def _put(bundle: Path, repository: Path, version: int) -> None:
    """A version, moved into place whole; its files are links where they can be."""
    folder = repository / _MODEL / str(version)
    aside = repository / _MODEL / f".{version}.new"

    def link(source: str, target: str) -> None:
        try:
            os.link(source, target)
        except OSError:
            shutil.copy2(source, target)

    shutil.copytree(bundle, aside, copy_function=link)
    aside.rename(folder)


def _row(
    bundle: Path, settings: Settings, outcome: Outcome, spans: Sequence[tuple[int, int]]
) -> Row:
    first = min((begin for begin, _ in spans), default=0) - outcome.begun
    steady = [sample for sample in outcome.samples if sample.scheduled < first]
    after = [sample for sample in outcome.samples if sample.scheduled >= first]
    warm = [sample for sample in steady if sample.scheduled > SECOND]
    before_p50, before_p99 = _percentiles(warm)
    while_p50, while_p99 = _percentiles(after)
    return {
        "label": "measured",
        "bundle": bundle.name,
        "rate": settings.rate,
        "replacements": len(spans),
        "replacement_ms": round(float(np.median([to_ms(e - b) for b, e in spans])), 1),
        "requests": len(outcome.samples),
        "errors": sum(sample.status != OK for sample in outcome.samples),
        "steady_p50_ms": before_p50,
        "steady_p99_ms": before_p99,
        "replacing_p50_ms": while_p50,
        "replacing_p99_ms": while_p99,
        "p99_ratio": round(while_p99 / before_p99, 3) if before_p99 else None,
    }


def _percentiles(samples: Sequence[Sample]) -> tuple[float, float]:
    latencies = [to_ms(sample.latency) for sample in samples if sample.status == OK]
    p50, p99 = np.percentile(latencies, [50, 99]) if latencies else (0.0, 0.0)
    return round(float(p50), 3), round(float(p99), 3)
