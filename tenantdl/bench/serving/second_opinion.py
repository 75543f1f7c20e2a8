"""`bench loadgen`: MLPerf LoadGen's Server scenario on the targets of `bench qos`, at one rate."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tenantdl.bench.envelope import write_results
from tenantdl.bench.serving import models
from tenantdl.bench.serving.probe import alone
from tenantdl.bench.serving.targets import PARTITIONED, SIMULATED, TARGETS, Setup, check_target
from tenantdl.errors import UserError
from tenantdl.exec.lane_pool import BACKEND
from tenantdl.load.loadgen import LoadgenTask, run_loadgen
from tenantdl.load.workload import Workload

Row = dict[str, Any]


def run(
    workload: Workload,
    targets: tuple[str, ...],
    *,
    rate: float | None = None,
    duration_s: float | None = None,
    json: Path | None = None,
    command: str = "tenantdl bench loadgen",
    report: Callable[[str], None] = lambda text: None,
    backend: str = BACKEND,
) -> list[Row]:
    """A row a target and tenant. Raises UserError for targets that cannot be driven so."""
    for name in targets:
        check_target(name)
        if name == SIMULATED or name in PARTITIONED:
            raise UserError("LoadGen drives servers that need no search", where=name)
    duration = duration_s or workload.load.duration_s
    rows: list[Row] = []
    for name in targets:
        report(f"{workload.name}: {name}")
        rows += _target(workload, name, rate, duration, backend)
    if json is not None:
        write_results(json, rows, command=command, seed=workload.load.seed)
    return rows


def _target(
    workload: Workload, name: str, rate: float | None, duration_s: float, backend: str
) -> list[Row]:
    rates = workload.rates(rate)
    with TemporaryDirectory(prefix="tenantdl-bench-") as place:
        folder = Path(place)
        with TARGETS[name](Setup(workload, folder, backend=backend)) as served:
            alone(served, workload, folder)
            streams = models.streams(
                workload,
                folder,
                rate=1.0,
                duration_s=1.0,
                seed=workload.load.seed,
                scalars_as=served.scalars_as,
            )
            tasks = [
                LoadgenTask(
                    served.url,
                    stream,
                    rates[stream.tenant],
                    duration_s,
                    workload.load.seed + number,
                )
                for number, stream in enumerate(streams)
            ]
            results = run_loadgen(tasks)
    return [
        {
            "experiment": "loadgen",
            "label": "measured",
            "workload": workload.name,
            "target": name,
            "tenant": tenant.name,
            "qos_ms": tenant.qos_ms,
            "rate": rates[tenant.name],
            "achieved": result.rate,
            "valid": result.valid,
            "refused": result.refused,
            **result.latencies,
        }
        for tenant, result in zip(workload.tenant, results, strict=True)
    ]
