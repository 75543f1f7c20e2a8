"""`bench chaos`: lanes are killed and hung under load, and nobody may notice more than a delay.

A lane is killed with SIGKILL, hung with SIGSTOP. Injuries are spread over the run at seeded
moments, after a stretch without any that says what is normal. Every request has to get exactly one
answer, a result or a refusal with its reason; a second after an injury latency has to be normal.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import msgspec
import numpy as np

from tenantdl.api import Progress
from tenantdl.bench.envelope import write_results
from tenantdl.bench.serving import usage
from tenantdl.bench.serving.checks import Check, one_answer_each, replays
from tenantdl.bench.serving.probe import alone, comparing_plan
from tenantdl.bench.serving.targets import Served
from tenantdl.daemon import running_daemon
from tenantdl.errors import ExecutionError
from tenantdl.exec.lane_pool import BACKEND
from tenantdl.load.issuer import OK, Outcome, drive
from tenantdl.load.workload import Workload
from tenantdl.units import MS, SECOND, from_ms, to_seconds

# What lanes call themselves.
LANE = "tenantdl-lane"
# The stretch without injuries, and how long after one latency may be out of the ordinary.
_CALM_SHARE, RECOVERY_NS = 0.15, 1 * SECOND
# Afterwards the 99th percentile may be this much above normal, or within its target.
_NORMAL = 1.5


@dataclass(frozen=True, slots=True)
class Settings:
    """`kills`, `hangs`: injuries within `duration_s`. `rate`: requests a second of all tenants
    (None: the workload's). `hang_s`: how long a lane may be silent before it counts as hung."""

    kills: int = 100
    hangs: int = 20
    duration_s: float = 240.0
    rate: float | None = None
    seed: int = 1
    hang_s: float = 0.5
    backend: str = BACKEND


class Injury(NamedTuple):
    """What was done to which process, when (monotonic ns)."""

    at: int
    kind: str
    pid: int


def run(
    workload: Workload,
    settings: Settings,
    *,
    journal: Path | None = None,
    json: Path | None = None,
    command: str = "tenantdl bench chaos",
    progress: Progress = lambda phase, part: None,
) -> list[Check]:
    """Serve `workload`, drive it, injure its lanes. `journal`: where to keep the scheduler's
    journal; `json`: a file for the verdict. Raises UserError for bad workloads."""
    scheduler = msgspec.structs.replace(workload.scheduler, hang_s=settings.hang_s)
    workload = msgspec.structs.replace(workload, scheduler=scheduler)
    with TemporaryDirectory(prefix="tenantdl-chaos-") as place:
        folder = Path(place)
        kept = journal or folder / "journal.jsonl"
        with running_daemon(workload, journal=kept, backend=settings.backend) as daemon:
            served = Served(daemon.url, daemon.pid, kept)
            alone(served, workload, folder)
            lanes = len(lane_pids(daemon.pid))
            outcome, injuries = _under_load(served, workload, settings, folder, progress)
            whole = _healed(daemon.pid, lanes)
        checks = [
            _injured(injuries, settings),
            *one_answer_each(outcome, kept),
            *recovery(workload, outcome, injuries),
            Check("all lanes are back at the end", whole, f"{lanes} lanes"),
            replays(kept),
        ]
    if json is not None:
        rows = [check.row("chaos", workload.name) for check in checks]
        write_results(json, rows, command=command, seed=settings.seed)
    return checks


def lane_pids(daemon: int) -> list[int]:
    """The lane processes below a daemon, in the order of their ids."""
    found = []
    for pid in usage.children(daemon):
        with contextlib.suppress(OSError):
            if Path(f"/proc/{pid}/comm").read_text().startswith(LANE):
                found.append(pid)
    return sorted(found)


def _under_load(
    served: Served,
    workload: Workload,
    settings: Settings,
    folder: Path,
    progress: Progress,
) -> tuple[Outcome, list[Injury]]:
    plan = comparing_plan(
        served,
        workload,
        folder,
        rate=settings.rate,
        duration_s=settings.duration_s,
        seed=settings.seed,
    )
    injuries: list[Injury] = []
    over = threading.Event()
    hand = threading.Thread(target=_injure, args=(served.pid, settings, injuries, over, progress))
    try:
        outcome = drive(plan, on_begun=hand.start)
    finally:
        over.set()
        if hand.is_alive():
            hand.join()
    return outcome, injuries


def _injure(
    daemon: int,
    settings: Settings,
    injuries: list[Injury],
    over: threading.Event,
    progress: Progress,
) -> None:
    """Kill and hang lanes, one after the other, until all is done or the load is over."""
    rng = np.random.default_rng(settings.seed)
    kinds = rng.permutation(["kill"] * settings.kills + ["hang"] * settings.hangs)
    calm = settings.duration_s * _CALM_SHARE
    gap = (settings.duration_s - calm) / max(1, len(kinds))
    start = time.monotonic()
    for number, kind in enumerate(kinds.tolist()):
        due = start + calm + gap * (number + 0.2 * float(rng.random()))
        while (lane := _victim(daemon, rng)) is None or time.monotonic() < due:
            if over.wait(max(0.01, due - time.monotonic())):
                return
        with contextlib.suppress(ProcessLookupError):
            os.kill(lane, signal.SIGKILL if kind == "kill" else signal.SIGSTOP)
            injuries.append(Injury(time.monotonic_ns(), kind, lane))
        part = (time.monotonic() - start) / settings.duration_s
        progress(f"{number + 1} of {len(kinds)} injuries", min(1.0, part))


def _victim(daemon: int, rng: np.random.Generator) -> int | None:
    """A lane that is not hung already."""
    living = []
    for pid in lane_pids(daemon):
        with contextlib.suppress(OSError):
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
            if state not in "TZ":
                living.append(pid)
    return living[int(rng.integers(len(living)))] if living else None


def _healed(daemon: int, lanes: int) -> bool:
    """Whether all lanes live, given time to start again."""
    until = time.monotonic() + 30
    while time.monotonic() < until:
        if len(lane_pids(daemon)) == lanes:
            return True
        time.sleep(0.1)
    return False


def _injured(injuries: Sequence[Injury], settings: Settings) -> Check:
    done = {kind: sum(i.kind == kind for i in injuries) for kind in ("kill", "hang")}
    enough = done["kill"] >= settings.kills and done["hang"] >= settings.hangs
    return Check("injuries", enough, f"{done['kill']} kills, {done['hang']} hangs")


def recovery(workload: Workload, outcome: Outcome, injuries: Sequence[Injury]) -> list[Check]:
    """For each tenant: the 99th percentile of what was due a second or more after the last injury,
    beside that of what was due before the first. What was due within its target before the next
    injury may have been hit by that, and belongs to it."""
    if not injuries:
        raise ExecutionError("no lane was injured: the load was over too soon")
    times = np.array([injury.at - outcome.begun for injury in injuries])
    checks = []
    for number, tenant in enumerate(workload.tenant):
        own = [s for s in outcome.samples if s.stream == number]
        due = np.array([s.scheduled for s in own])
        # A refusal is no answer in time: it counts as the longest wait.
        waits = np.array([s.latency if s.status == OK else from_ms(1e6) for s in own])
        before = waits[due < times[0]] if len(own) else waits
        last = np.searchsorted(times, due, side="right") - 1
        since = due - times[np.maximum(last, 0)]
        ahead = np.append(times, np.iinfo(np.int64).max)[last + 1]
        undisturbed = ahead - due > from_ms(tenant.qos_ms)
        after = waits[(last >= 0) & (since >= RECOVERY_NS) & undisturbed] if len(own) else waits
        if len(before) == 0 or len(after) == 0:
            checks.append(Check(f"{tenant.name}: p99 is normal again", False, "too few requests"))
            continue
        normal, now = (float(np.percentile(values, 99)) / MS for values in (before, after))
        checks.append(
            Check(
                f"{tenant.name}: p99 is normal {to_seconds(RECOVERY_NS):g} s after an injury",
                now <= max(_NORMAL * normal, tenant.qos_ms),
                f"{now:.1f} ms of {len(after)} after, {normal:.1f} ms of {len(before)} before any"
                f" (target {tenant.qos_ms:g} ms)",
            )
        )
    return checks
