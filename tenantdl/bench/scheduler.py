"""How many requests a second the batching scheduler takes on one core (Symphony's scheduler-only
protocol, arXiv 2308.07470 §5): Poisson arrivals, slots that only keep time.

The highest rate counts at which the generator, which shares the core, is at most 2 ms behind in 99
of 100 rounds. At half of that rate it is measured what a decision takes, and what all of them take
for each request (`request_us`): with more models fewer requests of a round share a decision.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tenantdl.api import Progress
from tenantdl.bench.envelope import write_results
from tenantdl.bench.peers import on_cores
from tenantdl.errors import UserError
from tenantdl.machine import usable_cores
from tenantdl.sched.batching import batcher
from tenantdl.sched.batching.config import BatchingConfig, Network, QueueSpec
from tenantdl.sched.batching.latency import linear
from tenantdl.sched.batching.pace import Pace
from tenantdl.units import MS, SECOND, US, Ns

Row = dict[str, Any]
LAG_MAX = 2 * MS
# "cpu" counts what this thread gets of its core: neighbours on the same machine do not slow it.
CLOCKS = {"wall": time.perf_counter_ns, "cpu": time.thread_time_ns}
_SIZE_MAX = 128
# Gaps are drawn once and used round and round, so that numpy's generator is not measured.
_DRAWN = 1 << 18
_FIRST_RATE, _STEP, _BISECTIONS = 50_000.0, 1.6, 4
_RATE_MAX = 50e6
_TRIAL_S, _TRIAL_WARM_S = 1.5, 0.5
# From a rate that only short trials bore, down until a full run bears it.
_BACK, _BACKS_MAX = 0.93, 8


@dataclass(frozen=True, slots=True)
class Protocol:
    """The paper's: a batch of b takes `alpha` · b + `beta` (ns) and requests have `slo` ns.
    `zipf`: popularity of the i-th model is i^−zipf (0: all alike). `clock`: a key of CLOCKS."""

    alpha: int = 1082 * US
    beta: int = 5204 * US
    slo: int = 100 * MS
    policy: str = "deferred"
    zipf: float = 0.0
    warm_up_s: float = 5.0
    seconds: float = 15.0
    seed: int = 1
    clock: str = "wall"


def measure(
    models: Sequence[int],
    slots: Sequence[int],
    protocol: Protocol = Protocol(),
    *,
    rate: float | None = None,
    json: Path | None = None,
    command: str = "tenantdl bench scheduler",
    progress: Progress | None = None,
) -> list[Row]:
    """One row for each number of models and of slots. `rate`: try only this one. Raises UserError
    when not even the lowest rate can be kept."""
    pairs = [(m, s) for s in slots for m in models]
    rows = []
    with on_cores(usable_cores()[:1]):
        for number, (m, s) in enumerate(pairs):
            if progress:
                progress(f"{m} models, {s} slots", number / len(pairs))
            rows.append(_row(m, s, protocol, rate))
    if json is not None:
        write_results(json, rows, command=command, seed=protocol.seed)
    return rows


def _row(models: int, slots: int, protocol: Protocol, rate: float | None) -> Row:
    highest = _highest(models, slots, protocol) if rate is None else rate
    for _ in range(_BACKS_MAX):
        whole = _run(models, slots, protocol, highest, protocol.warm_up_s, protocol.seconds)
        if rate is not None or _lag(whole) <= LAG_MAX:
            break
        highest *= _BACK
    half = _run(models, slots, protocol, highest / 2, 1.0, protocol.seconds / 3, timed=True)
    return {
        "experiment": "scheduler",
        "label": "measured",
        "models": models,
        "slots": slots,
        "policy": protocol.policy,
        "clock": protocol.clock,
        "compiled": not batcher.__file__.endswith(".py"),
        "requests_per_s": round(whole.requests / protocol.seconds),
        "lag_ms_p99": round(_lag(whole) / MS, 3),
        "good_per_s": round(whole.good / protocol.seconds),
        "decision_us_p50": round(float(np.percentile(half.decisions, 50)) / US, 2),
        "decision_us_p99": round(float(np.percentile(half.decisions, 99)) / US, 2),
        "request_us": round(sum(half.decisions) / max(1, half.requests) / US, 2),
    }


def _highest(models: int, slots: int, protocol: Protocol) -> float:
    """The highest rate that short trials bear: up in steps, then bisected."""

    def bears(rate: float) -> bool:
        return _lag(_run(models, slots, protocol, rate, _TRIAL_WARM_S, _TRIAL_S)) <= LAG_MAX

    low = _FIRST_RATE
    while not bears(low):
        low /= 2
        if low < 1:
            raise UserError("the scheduler keeps up with no rate at all: is the machine busy?")
    high = low * _STEP
    while high < _RATE_MAX and bears(high):
        low, high = high, high * _STEP
    for _ in range(_BISECTIONS):
        middle = (low * high) ** 0.5
        low, high = (middle, high) if bears(middle) else (low, middle)
    return low


def _run(
    models: int,
    slots: int,
    protocol: Protocol,
    rate: float,
    warm_up_s: float,
    seconds: float,
    *,
    timed: bool = False,
) -> Pace:
    times = linear(Ns(protocol.alpha), Ns(protocol.beta), _SIZE_MAX)
    specs = tuple(QueueSpec(f"model{i}", times, Ns(protocol.slo)) for i in range(models))
    made = batcher.Batcher(BatchingConfig(specs, slots, protocol.policy, network=Network()))
    rng = np.random.default_rng(protocol.seed)
    due = np.cumsum(rng.exponential(SECOND / rate, _DRAWN)).round().astype(np.int64)
    weights = np.arange(1, models + 1, dtype=np.float64) ** -protocol.zipf
    queues = rng.choice(models, _DRAWN, p=weights / weights.sum())
    pace = Pace(made, np.diff(due, prepend=0).tolist(), queues.tolist(), protocol.slo)
    since, until = round(warm_up_s * SECOND), round((warm_up_s + seconds) * SECOND)
    # Nothing here is cyclic: the collector would only walk what waits, again and again.
    gc.collect()
    gc.disable()
    tell = CLOCKS[protocol.clock]
    try:
        origin = tell()
        pace.run(lambda: tell() - origin, since, until, timed)
    finally:
        gc.enable()
    return pace


def _lag(pace: Pace) -> float:
    return float(np.percentile(pace.lags, 99)) if pace.lags else float("inf")
