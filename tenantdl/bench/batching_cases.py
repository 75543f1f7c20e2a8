"""Batching in virtual time, on the inputs of the papers: goodput of Symphony's policies on static
models (arXiv 2308.07470), finish rates of Orloj's on run times with several modes (2209.00159).

Goodput is the highest rate at which at most 1 % of the requests are bad, late or dropped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tenantdl.errors import UserError, nearest
from tenantdl.load.arrivals import Shape, poisson
from tenantdl.sched.batching.batcher import Batcher
from tenantdl.sched.batching.config import BatchingConfig, QueueSpec
from tenantdl.sched.batching.latency import Latency, linear, staggered_bound
from tenantdl.sched.batching.learn import Patience
from tenantdl.sched.batching.messages import Batch, Command, Event, Finished, Retimed
from tenantdl.sched.batching.order import ScoreOrder
from tenantdl.sched.batching.orloj import DynamicQueue, Orloj, OrlojConfig
from tenantdl.sched.batching.times import Times
from tenantdl.sim.slots import Batching, Outcome, Ran, Stream, simulate
from tenantdl.units import MS, SECOND, Ns, from_ms

Row = dict[str, Any]
BAD_MAX = 0.01
_SIZE_MAX = 64
_PRECISION = 1.01


@dataclass(frozen=True, slots=True)
class Static:
    """`models` equal models on `slots` slots; a batch of b takes alpha·b + beta ms."""

    models: int
    slots: int
    alpha: float
    beta: float
    slo: float
    seconds: float


STATIC = {
    "resnet50-8": Static(1, 8, 1.053, 5.072, 25, 6.0),
    "10-models-24": Static(10, 24, 0.2, 8.0, 25, 1.5),
    "8-resnet50-8": Static(8, 8, 1.053, 5.072, 25, 6.0),
}
STATIC_POLICIES = ("deferred", "eager", "eager-window", "auto")
# Modes of run times alone, ms, and how many requests are of each.
MODES = {
    "one-mode": ((20.0, 1.0),),
    "two-modes": ((10.0, 0.7), (60.0, 0.3)),
    "three-modes": ((5.0, 0.6), (25.0, 0.3), (100.0, 0.1)),
}
MODE_POLICIES = ("eager", "edf-mean", "edf-p99", "orloj", "auto")
CASES = (*STATIC, *MODES)
_SPREAD = 0.15  # of a mode: sigma of the logarithm
_C0, _C1 = from_ms(2.0), 0.6  # a batch of k takes c0 + c1·k·(the longest alone)
_SIZES = (1, 2, 4, 8, 16)
_SLOTS = 4


def static_rows(case: str, policies: Sequence[str], seed: int) -> list[Row]:
    """Goodput of each policy, and how it uses the slots at half of that."""
    given = STATIC[case]
    rows = []
    for policy in policies:
        rate = _goodput(given, policy, seed)
        half = _static(given, policy, rate / 2, seed)
        whole = _static(given, policy, rate, seed)
        rows.append(
            {
                "experiment": "batching",
                "label": "simulated",
                "case": case,
                "policy": policy,
                "slo_multiple": given.slo / (given.alpha + given.beta),
                "rate": round(rate),
                "finish_rate": 1 - whole.bad_share,
                "goodput": round(rate * (1 - whole.bad_share)),
                "batch_mean": whole.batch_mean,
                "slots_at_half": [round(share, 3) for share in half.busy],
            }
        )
    return rows


def mode_rows(
    case: str,
    policies: Sequence[str],
    multiples: Sequence[float],
    loads: Sequence[float],
    seed: int,
    seconds: float = 20.0,
) -> list[Row]:
    """Finish rates at each SLO (a multiple of the 99th percentile alone) and load (share of what
    the slots can do, requests one by one)."""
    rows = []
    for multiple in multiples:
        for load in loads:
            world = _World.make(case, multiple, load, seed, seconds)
            for policy in policies:
                outcome = world.run(policy)
                rows.append(
                    {
                        "experiment": "batching",
                        "label": "simulated",
                        "case": case,
                        "policy": policy,
                        "slo_multiple": multiple,
                        "load": load,
                        "rate": round(world.rate, 3),
                        "finish_rate": 1 - outcome.bad_share,
                        "goodput": outcome.good / outcome.duration_s,
                        "batch_mean": outcome.batch_mean,
                    }
                )
    return rows


def check_case(case: str) -> None:
    """Raises UserError for a case that there is not."""
    if case not in CASES:
        raise UserError(f"no case {case!r}{nearest(case, list(CASES))}")


def _static(given: Static, policy: str, rate: float, seed: int) -> Outcome:
    rng = np.random.default_rng(seed)
    times, slo = linear(from_ms(given.alpha), from_ms(given.beta), _SIZE_MAX), from_ms(given.slo)
    specs = (QueueSpec("model", times, slo),) * given.models
    streams = [
        Stream(m, poisson(rate / given.models, given.seconds, rng, Shape()), slo)
        for m in range(given.models)
    ]
    batcher = Batcher(BatchingConfig(specs, given.slots, policy))
    warm_up = given.seconds / 4
    return simulate(batcher, streams, given.slots, duration_s=given.seconds, warm_up_s=warm_up)


def _goodput(given: Static, policy: str, seed: int) -> float:
    """The highest rate with few bad requests, to 1 %."""
    times = Latency(linear(from_ms(given.alpha), from_ms(given.beta), _SIZE_MAX))
    high = staggered_bound(times, given.slots, from_ms(given.slo))[1] * 1.1
    low = high / 8
    while high / low > _PRECISION:
        middle = (low * high) ** 0.5
        if _static(given, policy, middle, seed).bad_share <= BAD_MAX:
            low = middle
        else:
            high = middle
    return low


@dataclass(frozen=True, slots=True)
class _World:
    """Requests with hidden run times; which mode one belongs to is known (its application)."""

    times: np.ndarray[Any, np.dtype[np.int64]]
    works: np.ndarray[Any, np.dtype[np.int64]]
    groups: np.ndarray[Any, np.dtype[np.int64]]
    slo: Ns
    rate: float
    seconds: float

    @classmethod
    def make(cls, case: str, multiple: float, load: float, seed: int, seconds: float) -> _World:
        rng = np.random.default_rng(seed)
        centres, shares = zip(*MODES[case], strict=True)

        def draw(count: int) -> tuple[Any, Any]:
            groups = rng.choice(len(centres), count, p=shares)
            spread = np.exp(rng.normal(0, _SPREAD, count))
            return groups, (np.array(centres)[groups] * MS * spread).astype(np.int64)

        alone = _C0 + _C1 * draw(20_000)[1]
        slo = Ns(round(multiple * float(np.percentile(alone, 99))))
        rate = load * _SLOTS * SECOND / float(alone.mean())
        times = poisson(rate, seconds, rng, Shape())
        groups, works = draw(len(times))
        return cls(times, works, groups, slo, rate, seconds)

    def run(self, policy: str) -> Outcome:
        """What becomes of the requests."""
        known = policy in ("orloj", "auto")
        batching = self._batching(policy)
        parts = [self.groups == g for g in range(self.groups.max() + 1)]
        if policy != "auto":
            parts = [np.ones(len(self.times), bool)]
        streams = [
            Stream(
                queue,
                self.times[part],
                self.slo,
                self.works[part].tolist(),
                self.groups[part].tolist() if known and policy == "orloj" else (),
            )
            for queue, part in enumerate(parts)
        ]
        return simulate(
            batching,
            streams,
            _SLOTS,
            duration_s=self.seconds,
            warm_up_s=self.seconds / 4,
            runtime=_runtime,
        )

    def _batching(self, policy: str) -> Batching:
        mean, tail = float(self.works.mean()), float(np.percentile(self.works, 99))
        if policy == "orloj":
            guess = (Ns(round(mean)),)
            queue = DynamicQueue("all", _C0, _C1, guess, _SIZES)
            return Orloj(OrlojConfig((queue,), _SLOTS, Ns(round(mean / 2))))
        if policy == "auto":
            groups = range(self.groups.max() + 1)
            return _Learning([_table(mean)] * len(groups), self.slo)
        point = tail if policy == "edf-p99" else mean
        spec = QueueSpec("all", _table(point), self.slo)
        return Batcher(BatchingConfig((spec,), _SLOTS, "eager", "deadline"))


class _Learning:
    """The batcher with learned l(b) and Orloj's score, as in `sched.batched`; a queue a mode."""

    def __init__(self, tables: Sequence[tuple[Ns, ...]], slo: Ns) -> None:
        self._times = [Times(table) for table in tables]
        specs = tuple(QueueSpec(f"mode{i}", table, slo) for i, table in enumerate(tables))
        self._patience = [Patience() for _ in tables]
        self._batcher = Batcher(
            BatchingConfig(specs, _SLOTS, "auto"),
            lambda _: ScoreOrder(
                self._times.__getitem__, lambda queue: self._patience[queue].value
            ),
        )
        self._running: dict[int, Batch] = {}

    def handle(self, event: Event, now: Ns) -> list[Command]:
        """Take `event` in and say what to do."""
        found: list[Command] = []
        if isinstance(event, Finished):
            batch = self._running.pop(event.batch)
            times = self._times[batch.queue]
            if times.observe(len(batch.requests), event.elapsed, 1.0, event.works):
                found += self._batcher.handle(Retimed(batch.queue, times.times()), now)
        found += self._batcher.handle(event, now)
        for command in found:
            if isinstance(command, Batch):
                self._running[command.batch] = command
            served = isinstance(command, Batch)
            for request in command.requests if isinstance(command, Batch) else (command.request,):
                waited = Ns(now - request.arrived)
                self._patience[command.queue].observe(waited, served=served)
        return found

    def next_wakeup(self) -> Ns | None:
        """When a Tick is due."""
        return self._batcher.next_wakeup()


def _table(work: float) -> tuple[Ns, ...]:
    return tuple(Ns(round(_C0 + _C1 * k * work)) for k in range(1, _SIZES[-1] + 1))


def _runtime(batch: Batch, works: tuple[int, ...]) -> Ran:
    alone = tuple(Ns(round(_C0 + _C1 * work)) for work in works)
    return Ran(round(_C0 + _C1 * len(works) * max(works)), alone)
