"""What is measured: plans of bundles, in a variant, on so many cores; and synthetic neighbours."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tenantdl.bundle.load import read_manifest
from tenantdl.bundle.manifest import (
    WEIGHTS,
    Manifest,
    Plan,
    calls_of,
    short_digest,
    variant_count,
)
from tenantdl.exec.stress import KINDS
from tenantdl.machine import this_machine
from tenantdl.predict.footprint import Footprint
from tenantdl.predict.samples import Party, Room

_STRESS_S = 0.05
_MIB = 1024**2
STRESS = "stress"


@dataclass(frozen=True, slots=True)
class Subject:
    """`name` tells compilations apart: a bundle that was compiled again is another subject."""

    bundle: Path
    model: str
    digest: str
    plan: int
    batch: int
    variant: int
    cores: int

    @property
    def name(self) -> str:
        """As it is stored."""
        return f"{self.model}@{self.digest}/p{self.plan}b{self.batch}/v{self.variant}/c{self.cores}"


def subjects(bundles: Sequence[Path], batches: Sequence[int] = ()) -> list[Subject]:
    """Every variant of every plan on every number of cores that this machine has; plans of
    `batches` only, if there are any. Raises UserError."""
    usable = len(this_machine().cores)
    found = []
    for bundle in bundles:
        manifest = read_manifest(bundle)
        digest = short_digest(manifest)
        for number, plan in enumerate(manifest.plans):
            if batches and plan.batch not in batches:
                continue
            counts = plan.variants[0].cores if plan.variants else (1,)
            found += [
                Subject(bundle, manifest.name, digest, number, plan.batch, variant, cores)
                for variant in range(variant_count(plan))
                for cores in counts
                if cores <= usable
            ]
    return found


def footprint(bundle: Path, manifest: Manifest, plan: Plan, variant: int) -> Footprint:
    """Of one run. Weights that the last-level cache cannot hold stream; the rest of what comes from
    beyond a core's caches is read again from there."""
    calls = calls_of(plan, variant)
    weights = (bundle / WEIGHTS).stat().st_size
    caches = this_machine().caches
    stream = float(weights) if weights > caches.l3_bytes else 0.0
    known = plan.variants[variant] if plan.variants else None
    traffic = sum(known.traffic_bytes) if known and known.traffic_bytes else 0
    private = max(known.private_bytes) if known and known.private_bytes else caches.l2_bytes
    traffic = traffic or sum(call.bytes for call in calls)
    return Footprint(
        flops=float(sum(call.flops for call in calls)),
        stream_bytes=stream,
        reuse_bytes=max(0.0, traffic - stream),
        shared_bytes=float(weights + plan.arena_bytes),
        private_bytes=float(private),
    )


def party(subject: Subject, alone_ns: float, counted: tuple[float, float] | None = None) -> Party:
    """A subject as predictors know it. `counted`: bytes that a run accesses in the last-level cache
    and misses there."""
    manifest = read_manifest(subject.bundle)
    plan = manifest.plans[subject.plan]
    known = footprint(subject.bundle, manifest, plan, subject.variant)
    rates = None if counted is None else (counted[0] / alone_ns, counted[1] / alone_ns)
    return Party(subject.model, subject.variant, subject.cores, alone_ns, known, counted=rates)


def stressor(kind: str) -> Party:
    """A synthetic neighbour, its rates measured on the calling thread's core."""
    ns, times = _pace(kind)
    moved = 4.0 * _MIB * times
    private = this_machine().caches.l2_bytes * 0.75
    known = {
        "write": Footprint(0.0, 2 * moved, 0.0, 256.0 * _MIB, 0.0),
        "read": Footprint(0.0, moved, 0.0, 256.0 * _MIB, 0.0),
        "cache": Footprint(0.0, 0.0, 0.0, 0.0, private),
        "compute": Footprint(2.0 * 48**3 * 64 * times, 0.0, 0.0, 0.0, 3 * 4.0 * 48**2),
    }
    return Party(f"{STRESS}:{kind}", 0, 1, ns, known[kind])


def room() -> Room:
    """What the cores of this machine share: as much bandwidth for each as one alone gets."""
    read = stressor("read")
    a_core = 2 * read.stream
    machine = this_machine()
    cores = len(machine.cores)
    return Room(cores, a_core * cores, float(max(machine.caches.l3_bytes, 1)), a_core)


def _pace(kind: str) -> tuple[float, int]:
    """(ns, how often): a stressor's work, for a while."""
    work = KINDS[kind]()
    work()
    start, times = time.perf_counter_ns(), 0
    while time.perf_counter_ns() - start < _STRESS_S * 1e9:
        work()
        times += 1
    return float(time.perf_counter_ns() - start), times
