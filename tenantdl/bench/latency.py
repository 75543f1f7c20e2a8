"""Latency of one model at a time, ours beside the peers, so that noise hits all alike.

Contestants take turns in one process (A B C A B C …) on the same cores and the same inputs. A turn
is one untimed call, which wakes worker threads and refills caches after the others, and then a few
timed ones. Outputs are compared, so that nobody is fast by being wrong. Times are wall-clock
nanoseconds of a whole call: inputs in, outputs out.
"""

from __future__ import annotations

import gc
import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from tenantdl.api import Progress
from tenantdl.bench import cache, hide
from tenantdl.bench.peers import PEERS, Array, Call, Job, Outputs, on_cores
from tenantdl.bundle.load import load_bundle, read_manifest
from tenantdl.compile.target import parse_target
from tenantdl.errors import UserError
from tenantdl.exec.cores import pin
from tenantdl.exec.runner import Runner
from tenantdl.ids import CoreId
from tenantdl.load.inputs import random_inputs
from tenantdl.machine import usable_cores
from tenantdl.units import MS, SECOND

OURS = "tenantdl"
DIFFERENCE_MAX = 1e-3  # of the largest output; fp32 in another order of summation stays far below

WARM_UP_CALLS = 3
TURN_NS = 10 * MS
TURN_CALLS_MAX = 8
SETTLE_BELOW_NS = 50 * MS  # an untimed call before the timed ones, unless calls are this long
CALLS_MAX = 100_000
CALIBRATION_CALLS = 15
CALIBRATION_STEPS = 100_000
BREAKDOWN_CALLS = 9

Row: TypeAlias = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Settings:
    """What to measure. Each target makes at least `runs` timed calls and goes on until `seconds`
    have passed; `spin` lets peers' idle threads burn their cores. `cpu`: what our kernels are
    compiled for and peers are held to, native or x86_64:haswell."""

    against: tuple[str, ...] = ("onnxruntime", "openvino")
    threads: tuple[int, ...] = (1, 2)
    batch: int = 1
    runs: int = 30
    seconds: float = 0.0
    spin: bool = False
    seed: int = 0
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    cpu: str = "native"


@dataclass(slots=True)
class Report:
    """Rows (see `measure`) and, a line each, what could not be measured and why."""

    rows: list[Row] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Contestant:
    """A call and the cores its calling thread is held on meanwhile."""

    call: Call
    cores: tuple[CoreId, ...]


def measure(models: Sequence[str], settings: Settings, progress: Progress) -> Report:
    """Measure each of `models` (zoo names or ONNX files) for every count of threads.

    A row: model, batch, threads, cpu, target, median_ms, p05_ms, p95_ms, runs, calibration_ms (a
    fixed loop before and after, to see if the machine changed), and for peers `difference`: the
    largest deviation of our outputs over their largest output (null in files when shapes or
    infinities do not even match), for ours `kinds_ms`: where the time goes, by kind of operator
    (templates' names; "generic": the fallback), timed in calls of their own. `progress` hears
    what happens. A model or peer that fails is reported and the rest goes on; UserError for
    settings that cannot be met at all.
    """
    everything = usable_cores()
    if max(settings.threads) > len(everything):
        raise UserError(
            f"{max(settings.threads)} threads asked for, {len(everything)} cores usable"
        )
    report = Report()
    jobs = []
    steps = len(models) * (1 + len(settings.threads))
    for number, name in enumerate(models):
        progress(f"{name}: compiling, unless it is in the cache", number / steps)
        try:
            jobs.append(_prepare(name, settings))
        except UserError as error:
            report.failures.append(str(error) if name in str(error) else f"{name}: {error}")
    # Libraries that catch faults themselves come first, peers later.
    hide.match(parse_target(settings.cpu))
    turns = [(job, threads) for job in jobs for threads in settings.threads]
    for number, (job, threads) in enumerate(turns, len(models)):
        progress(f"{job.name}: measuring on {threads} of {len(everything)} cores", number / steps)
        _measure_one(job, everything[:threads], settings, report)
    return report


def alternate(
    contestants: Mapping[str, Contestant],
    *,
    runs: int,
    seconds: float,
    clock: Callable[[], int] = time.perf_counter_ns,
) -> dict[str, list[int]]:
    """Timed calls of each contestant in turns, in nanoseconds (at least `runs` each)."""
    times: dict[str, list[int]] = {name: [] for name in contestants}
    usual = {name: _warm_up(contestant, clock) for name, contestant in contestants.items()}
    start = clock()
    with _no_collection():
        while len(min(times.values(), key=len)) < runs or clock() - start < seconds * SECOND:
            for name, contestant in contestants.items():
                count = max(1, min(TURN_CALLS_MAX, TURN_NS // max(1, usual[name])))
                with on_cores(contestant.cores):
                    if usual[name] < SETTLE_BELOW_NS:
                        contestant.call()
                    times[name] += [_timed(contestant.call, clock) for _ in range(count)]
            if max(map(len, times.values())) > CALLS_MAX:
                break
    return times


def difference(ours: Outputs, theirs: Outputs) -> float:
    """max |ours − theirs| ÷ max |theirs| over all outputs; infinite when they do not match up."""
    if len(ours) != len(theirs):
        return math.inf
    worst = 0.0
    for pair in zip(ours, theirs, strict=True):
        a, b = (np.asarray(side, np.float64) for side in pair)
        if a.shape != b.shape or not np.array_equal(np.isfinite(a), np.isfinite(b)):
            return math.inf
        finite = np.isfinite(b)
        if not finite.any():
            continue
        scale = float(np.abs(b[finite]).max()) or 1.0
        worst = max(worst, float(np.abs(a[finite] - b[finite]).max()) / scale)
    return worst


def ratios(rows: Sequence[Row]) -> dict[tuple[str, int], float]:
    """(model, threads) → our median over that of the fastest peer; below 1 we are faster."""
    medians: dict[tuple[str, int], dict[str, float]] = {}
    for row in rows:
        medians.setdefault((row["model"], row["threads"]), {})[row["target"]] = row["median_ms"]
    return {
        key: values[OURS] / min(v for target, v in values.items() if target != OURS)
        for key, values in medians.items()
        if OURS in values and len(values) > 1
    }


def geometric_mean(values: Sequence[float]) -> float:
    """The mean for ratios; NaN of nothing."""
    return math.exp(statistics.fmean(map(math.log, values))) if values else math.nan


@dataclass(frozen=True, slots=True)
class _Prepared:
    name: str
    file: Path
    bundle: Path
    inputs: Mapping[str, Array]


def _prepare(name: str, settings: Settings) -> _Prepared:
    model = cache.source(name, batch=settings.batch, seed=settings.seed)
    shapes = {**cache.shapes_of(model.samples or {}), **settings.shapes}
    bundle = cache.bundle(model, batch=settings.batch, shapes=shapes, target=settings.cpu)
    tensors = read_manifest(bundle).plans[0].inputs
    sampled = model.samples is not None and not settings.shapes
    inputs = model.samples if sampled else None
    return _Prepared(
        model.name, model.file, bundle, inputs or random_inputs(tensors, settings.seed)
    )


def _measure_one(
    model: _Prepared, cores: tuple[CoreId, ...], settings: Settings, report: Report
) -> None:
    job = Job(model.file, model.inputs, cores, settings.spin)
    runner = _open_ours(model, cores)
    contestants = {OURS: Contestant(lambda: tuple(runner.run(model.inputs).values()), cores[:1])}
    for peer in settings.against:
        try:
            contestants[peer] = Contestant(PEERS[peer](job), cores)
        except UserError as error:
            if str(error) not in report.failures:
                report.failures.append(str(error))
    answers = {}
    for name, contestant in contestants.items():
        with on_cores(contestant.cores):
            answers[name] = tuple(value.copy() for value in contestant.call())
    before = _calibrate(cores)
    times = alternate(contestants, runs=settings.runs, seconds=settings.seconds)
    calibration_ms = [before, _calibrate(cores)]
    for name, taken in times.items():
        row = _row(model.name, settings.batch, len(cores), name, taken)
        row["cpu"] = settings.cpu
        row["calibration_ms"] = calibration_ms
        if name == OURS:
            row["kinds_ms"] = _by_kind(runner, cores)
        else:
            row["difference"] = difference(answers[OURS], answers[name])
        report.rows.append(row)


def _row(model: str, batch: int, threads: int, target: str, taken: Sequence[int]) -> Row:
    low, median, high = (float(time) / MS for time in np.percentile(taken, [5, 50, 95]))
    return {
        "model": model,
        "batch": batch,
        "threads": threads,
        "target": target,
        "median_ms": median,
        "p05_ms": low,
        "p95_ms": high,
        "runs": len(taken),
    }


def _open_ours(model: _Prepared, cores: tuple[CoreId, ...]) -> Runner:
    with on_cores(cores):
        pin(cores)
        return Runner(load_bundle(model.bundle))


def _by_kind(runner: Runner, cores: tuple[CoreId, ...]) -> dict[str, float]:
    """Milliseconds that the operators of each kind take together, most first."""
    with on_cores(cores[:1]):
        times = np.median([runner.time_ns() for _ in range(BREAKDOWN_CALLS)], axis=0) / MS
    kinds: dict[str, float] = {}
    for call, time_ms in zip(runner.plan.calls, times, strict=True):
        kinds[call.kind] = kinds.get(call.kind, 0.0) + float(time_ms)
    return dict(sorted(kinds.items(), key=lambda item: -item[1]))


def _warm_up(contestant: Contestant, clock: Callable[[], int]) -> int:
    """The time of the last of a few calls, in nanoseconds."""
    with on_cores(contestant.cores):
        return [_timed(contestant.call, clock) for _ in range(WARM_UP_CALLS)][-1]


def _timed(call: Callable[[], object], clock: Callable[[], int]) -> int:
    start = clock()
    call()
    return clock() - start


def _calibrate(cores: tuple[CoreId, ...]) -> float:
    """Median milliseconds of a fixed loop of pure Python: how fast the core is just now."""
    with on_cores(cores[:1]):
        taken = [
            _timed(lambda: sum(range(CALIBRATION_STEPS)), time.perf_counter_ns)
            for _ in range(CALIBRATION_CALLS)
        ]
    return statistics.median(taken) / MS


@contextmanager
def _no_collection() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
