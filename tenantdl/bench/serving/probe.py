"""One rate on one running target: drive it, count, and weigh what it took."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np

from tenantdl.bench.serving import models, usage
from tenantdl.bench.serving.targets import Served
from tenantdl.errors import ExecutionError
from tenantdl.load.issuer import OK, Outcome, Plan, Sample, drive
from tenantdl.load.workload import Workload
from tenantdl.units import SECOND, from_ms, to_ms

_CLIENT_TIMEOUT_S = 60.0
# Requests of each tenant, one at a time, before any load; the first ones do not count.
_COLD, _ALONE = 2, 7


class Tally(NamedTuple):
    """One tenant's requests in a probe: how many were due and in time; `latencies_ms` of answers,
    in the order of their answers."""

    tenant: str
    qos_ms: float
    due: int
    in_time: int
    answered: int
    latencies_ms: list[float]

    @property
    def share(self) -> float:
        """In time, of all that were due (1 where nothing was)."""
        return self.in_time / self.due if self.due else 1.0


@dataclass(frozen=True, slots=True)
class Probe:
    """A target under load. `stopped`: it missed too much before the end, `tallies` count what was
    due up to then. `cores`, `client_cores`: used by the target and by the load generator on
    average. `begun`: on the monotonic clock."""

    rate: float
    duration_s: float
    tallies: tuple[Tally, ...]
    stopped: bool
    cores: float
    client_cores: float
    begun: int
    samples: list[Sample]
    unlike: int

    @property
    def worst(self) -> float:
        """The lowest share in time of any tenant."""
        return min(tally.share for tally in self.tallies)

    def holds(self, share: float) -> bool:
        """Whether every tenant had this share in time."""
        return not self.stopped and self.worst >= share

    @property
    def goodput(self) -> float:
        """Answers in time, a second."""
        return sum(tally.in_time for tally in self.tallies) / self.duration_s

    def percentile(self, q: float) -> float | None:
        """Of all answers' latencies, in ms."""
        every = [ms for tally in self.tallies for ms in tally.latencies_ms]
        return round(float(np.percentile(every, q)), 4) if every else None


def probe(
    served: Served,
    workload: Workload,
    folder: Path,
    *,
    rate: float,
    duration_s: float,
    seed: int,
    give_up: float | None = None,
    only: Sequence[str] = (),
) -> Probe:
    """Drive `workload` at `rate`. `give_up`: stop once a tenant can no longer have this share of
    its requests in time. `only`: tenants that send anything (none named: all). Raises
    ExecutionError if the load generator fails."""
    streams = models.streams(
        workload,
        folder,
        rate=rate,
        duration_s=duration_s,
        seed=seed,
        scalars_as=served.scalars_as,
        binary=served.binary,
    )
    if only:
        streams = [s if s.tenant in only else msgspec.structs.replace(s, times=[]) for s in streams]
    if give_up is not None:
        streams = [
            msgspec.structs.replace(s, misses_max=int(len(s.times) * (1 - give_up)))
            for s in streams
        ]
    plan = Plan(
        url=served.url,
        streams=streams,
        in_flight_max=workload.load.in_flight_max,
        timeout_s=_CLIENT_TIMEOUT_S,
    )
    before, started = usage.cpu_ns(served.pid), time.monotonic_ns()
    outcome = drive(plan)
    took = max(1, time.monotonic_ns() - started)
    used = usage.cpu_ns(served.pid) - before
    # The generator's own start is no load. (It begins later than it ends where nothing was due.)
    running = time.monotonic_ns() - outcome.begun
    took = min(took, running) if running > 0 else took
    return _counted(workload, outcome, rate, duration_s, used / took, took)


def _counted(
    workload: Workload, outcome: Outcome, rate: float, duration_s: float, cores: float, took: int
) -> Probe:
    lasted_s = min(duration_s, took / SECOND) if outcome.stopped else duration_s
    return Probe(
        rate=rate,
        duration_s=lasted_s,
        tallies=tuple(
            tally(tenant.name, tenant.qos_ms, [s for s in outcome.samples if s.stream == number])
            for number, tenant in enumerate(workload.tenant)
        ),
        stopped=outcome.stopped,
        cores=round(cores, 4),
        client_cores=round(outcome.cpu_ns / took, 4),
        begun=outcome.begun,
        samples=outcome.samples,
        unlike=outcome.unlike,
    )


def tally(tenant: str, qos_ms: float, samples: Sequence[Sample]) -> Tally:
    """Count one tenant's samples."""
    qos = from_ms(qos_ms)
    answered = [sample for sample in samples if sample.status == OK]
    return Tally(
        tenant=tenant,
        qos_ms=qos_ms,
        due=len(samples),
        in_time=sum(sample.latency <= qos for sample in answered),
        answered=len(answered),
        latencies_ms=[to_ms(sample.latency) for sample in answered],
    )


def comparing_plan(
    served: Served,
    workload: Workload,
    folder: Path,
    *,
    rate: float | None,
    duration_s: float,
    seed: int,
) -> Plan:
    """All of a long run's requests, whose answers are compared with each other. `rate`: None for
    the workload's."""
    streams = models.streams(
        workload,
        folder,
        rate=rate or workload.load.rate,
        duration_s=duration_s,
        seed=seed,
    )
    return Plan(
        url=served.url,
        streams=streams,
        in_flight_max=workload.load.in_flight_max,
        timeout_s=_CLIENT_TIMEOUT_S,
        compare=True,
    )


def alone(served: Served, workload: Workload, folder: Path) -> dict[str, float]:
    """Warm the target up, one request at a time; each tenant's median latency in ms.

    Raises ExecutionError for a tenant that gets no answer."""
    streams = [
        msgspec.structs.replace(stream, times=[0] * (_COLD + _ALONE))
        for stream in models.streams(
            workload,
            folder,
            rate=1.0,
            duration_s=1.0,
            seed=workload.load.seed,
            scalars_as=served.scalars_as,
            binary=served.binary,
        )
    ]
    plan = Plan(served.url, streams, in_flight_max=1, timeout_s=_CLIENT_TIMEOUT_S, one_by_one=True)
    samples = drive(plan).samples
    medians: dict[str, float] = {}
    for number, stream in enumerate(streams):
        own = [sample for sample in samples if sample.stream == number][_COLD:]
        good = [to_ms(sample.latency) for sample in own if sample.status == OK]
        if not good:
            raise ExecutionError(f"tenant {stream.tenant}: no request was served when alone")
        medians[stream.tenant] = round(float(np.median(good)), 4)
    return medians
