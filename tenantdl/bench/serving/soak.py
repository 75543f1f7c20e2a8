"""`bench soak`: a long run under load, watched for growth and drift.

The daemon's memory, shared memory, descriptors, threads and processes are looked at all the time;
the last quarter of the run is compared with the second one (the first may still warm up).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple, TypeVar

import msgspec
import numpy as np

from tenantdl.api import Progress
from tenantdl.bench.envelope import write_results
from tenantdl.bench.serving.checks import Check, one_answer_each, replays
from tenantdl.bench.serving.probe import alone, comparing_plan
from tenantdl.bench.serving.targets import Served
from tenantdl.bench.serving.usage import Usage, usage
from tenantdl.daemon import running_daemon
from tenantdl.exec.lane_pool import BACKEND
from tenantdl.load.issuer import OK, Outcome, Plan, drive
from tenantdl.load.workload import Workload
from tenantdl.units import to_ms

V = TypeVar("V")

_MIB = 1024**2
_LOOKS = 200
# A journal of the whole run is kept.
_JOURNAL_MB = 4096.0
# The 99th percentile of the last quarter over that of the second. Percentiles of rare requests are
# noisy: far below the target they may vary.
_DRIFT, _FAR_BELOW = 1.3, 0.5


@dataclass(frozen=True, slots=True)
class Settings:
    """`rate`: requests a second of all tenants (None: the workload's)."""

    duration_s: float = 1200.0
    rate: float | None = None
    seed: int = 1
    backend: str = BACKEND


class Bound(NamedTuple):
    """How much a quantity may grow: by `least`, or by this part of itself."""

    name: str
    unit: str
    scale: float
    least: float
    part: float


_BOUNDS = {
    "memory_bytes": Bound("memory", "MiB", _MIB, 16.0, 0.02),
    "shared_bytes": Bound("shared memory", "MiB", _MIB, 16.0, 0.02),
    # Connections come and go with the load.
    "descriptors": Bound("descriptors", "", 1, 16.0, 0.05),
    "threads": Bound("threads", "", 1, 0.0, 0.0),
    "processes": Bound("processes", "", 1, 0.0, 0.0),
}


def run(
    workload: Workload,
    settings: Settings,
    *,
    journal: Path | None = None,
    json: Path | None = None,
    command: str = "tenantdl bench soak",
    progress: Progress = lambda phase, part: None,
) -> list[Check]:
    """Serve and drive `workload` for `duration_s`. Raises UserError for bad workloads."""
    server = msgspec.structs.replace(workload.server, journal_mb_max=_JOURNAL_MB)
    workload = msgspec.structs.replace(workload, server=server)
    with TemporaryDirectory(prefix="tenantdl-soak-") as place:
        folder = Path(place)
        kept = journal or folder / "journal.jsonl"
        with running_daemon(workload, journal=kept, backend=settings.backend) as daemon:
            served = Served(daemon.url, daemon.pid, kept)
            alone(served, workload, folder)
            plan = comparing_plan(
                served,
                workload,
                folder,
                rate=settings.rate,
                duration_s=settings.duration_s,
                seed=settings.seed,
            )
            outcome, looks = _watched(plan, daemon.pid, settings.duration_s, progress)
        checks = [
            *growth(looks),
            *drift(workload, outcome, settings.duration_s),
            *one_answer_each(outcome, kept),
            replays(kept),
        ]
    if json is not None:
        rows = [check.row("soak", workload.name) for check in checks]
        write_results(json, rows, command=command, seed=settings.seed)
    return checks


def _watched(
    plan: Plan, pid: int, duration_s: float, progress: Progress
) -> tuple[Outcome, list[Usage]]:
    looks: list[Usage] = []
    over = threading.Event()
    pause = duration_s / _LOOKS

    def watch() -> None:
        begun = time.monotonic()
        while not over.wait(pause):
            looks.append(usage(pid))
            last = looks[-1]
            progress(
                f"{last.memory_bytes / _MIB:.0f} MiB, {last.descriptors} descriptors,"
                f" {last.threads} threads",
                min(1.0, (time.monotonic() - begun) / duration_s),
            )

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        outcome = drive(plan)
    finally:
        over.set()
        watcher.join()
    return outcome, looks


def growth(looks: Sequence[Usage]) -> list[Check]:
    """The last quarter of the looks beside the second, by medians."""
    second, last = _quarters(looks)
    checks = []
    for key, bound in _BOUNDS.items():
        then, now = (
            float(np.median([getattr(look, key) for look in part])) / bound.scale if part else 0.0
            for part in (second, last)
        )
        checks.append(
            Check(
                f"no growth of {bound.name}",
                bool(second) and now - then <= max(bound.least, bound.part * then),
                f"{then:.0f} → {now:.0f} {bound.unit}".rstrip(),
            )
        )
    return checks


def drift(workload: Workload, outcome: Outcome, duration_s: float) -> list[Check]:
    """Each tenant's 99th percentile in the last quarter beside that in the second."""
    checks = []
    for number, tenant in enumerate(workload.tenant):
        own = sorted(
            (s.scheduled, s.latency)
            for s in outcome.samples
            if s.stream == number and s.status == OK
        )
        second, last = _quarters([latency for _, latency in own])
        if not second or not last:
            checks.append(Check(f"no drift of {tenant.name}'s p99", False, "too few requests"))
            continue
        then, now = (to_ms(int(np.percentile(part, 99))) for part in (second, last))
        checks.append(
            Check(
                f"no drift of {tenant.name}'s p99",
                now <= max(_DRIFT * then, _FAR_BELOW * tenant.qos_ms),
                f"{then:.1f} → {now:.1f} ms (target {tenant.qos_ms:g} ms)",
            )
        )
    return checks


def _quarters(values: Sequence[V]) -> tuple[list[V], list[V]]:
    """The second and the last quarter."""
    size = len(values) // 4
    return list(values[size : 2 * size]), list(values[len(values) - size :])
