"""What subjects take alone: the whole distribution, and what the ends of blocks cost."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import numpy as np

from tenantdl.bundle.load import LoadedBundle, load_bundle
from tenantdl.exec.cores import pin
from tenantdl.exec.runner import Runner
from tenantdl.machine import this_machine
from tenantdl.profile.counters import Counters
from tenantdl.profile.store import Solo, Store
from tenantdl.profile.subjects import Subject, party

QUANTILES = (1, 5, 25, 50, 75, 95, 99)
_RUNS_MIN, _RUNS_MAX = 10, 400
_SECONDS = 1.0
_BOUNDARY_RUNS = 5
# What a counted access to the last-level cache moves, bytes.
_LINE = 64


class Runners:
    """A runner for each plan, opened once."""

    def __init__(self) -> None:
        self._bundles: dict[Path, LoadedBundle] = {}
        self._runners: dict[tuple[Path, int], Runner] = {}

    def of(self, subject: Subject) -> Runner:
        """Ready to run. Raises UserError."""
        key = (subject.bundle, subject.plan)
        if key not in self._runners:
            if subject.bundle not in self._bundles:
                self._bundles[subject.bundle] = load_bundle(subject.bundle)
            loaded = self._bundles[subject.bundle]
            self._runners[key] = Runner(loaded, loaded.manifest.plans[subject.plan])
        return self._runners[key]


def run_ns(runner: Runner, variant: int) -> int:
    """One run of a plan, in ns."""
    start = time.perf_counter_ns()
    runner.run_block(0, runner.segment_count, variant)
    return time.perf_counter_ns() - start


def measure_solo(
    store: Store,
    found: Sequence[Subject],
    runners: Runners,
    report: Callable[[str], None] = lambda text: None,
    counters: Counters | None = None,
) -> None:
    """Measure those that the store does not know yet; with hardware `counters`, where there are
    any, of the calling thread."""
    known = store.solos()
    cores = this_machine().cores
    for subject in found:
        if subject.name in known:
            continue
        report(subject.name)
        pin(cores[: subject.cores])
        runner = runners.of(subject)
        run_ns(runner, subject.variant)
        times: list[int] = []
        start = time.monotonic()
        while len(times) < _RUNS_MIN or (
            time.monotonic() - start < _SECONDS and len(times) < _RUNS_MAX
        ):
            times.append(run_ns(runner, subject.variant))
        quantiles = {str(q): float(np.percentile(times, q)) for q in QUANTILES}
        boundary = _boundary_ns(runner, subject.variant)
        counted = None if counters is None else _moved(runner, subject.variant, counters)
        what = msgspec.json.encode(party(subject, quantiles["50"], counted)).decode()
        store.add_solo(Solo(subject.name, len(times), quantiles, boundary, what))


def _moved(runner: Runner, variant: int, counters: Counters) -> tuple[float, float]:
    """Bytes that a run gets from the last-level cache, and from beyond it: counted on one core,
    where the calling thread does it all."""
    pin(this_machine().cores[:1])
    run_ns(runner, variant)
    with counters:
        run_ns(runner, variant)
    counts = counters.read()
    return _LINE * counts.cache_accesses, _LINE * counts.cache_misses


def _boundary_ns(runner: Runner, variant: int) -> float:
    """What a plan takes longer when every segment is a call of its own, a segment."""
    whole, cut = [], []
    for _ in range(_BOUNDARY_RUNS):
        whole.append(run_ns(runner, variant))
        start = time.perf_counter_ns()
        for segment in range(runner.segment_count):
            runner.run_block(segment, segment + 1, variant)
        cut.append(time.perf_counter_ns() - start)
    return max(0.0, (min(cut) - min(whole)) / max(1, runner.segment_count - 1))
