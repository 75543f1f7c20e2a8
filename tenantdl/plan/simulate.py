"""Does a plan keep its word? Batch-aware dispatch in virtual time, pure and seeded.

Requests fill one batch after the other; each tier's turn comes by its share of the planned rate
(virtual time counts requests, and of the tiers whose turn has come the one whose batch should be
full first goes first). A full batch goes to the tier's machine that is free first. A batch that has
been open for as long as the module's latency bound leaves goes off as it is: that is what dummy
requests stand for. Times are seconds from the start.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from tenantdl.plan.dag import Application, ApplicationPlan
from tenantdl.plan.module import ModulePlan

Floats: TypeAlias = NDArray[np.float64]

REQUESTS_MAX = 2_000_000


@dataclass(frozen=True, slots=True)
class Run:
    """A batch of `size` requests, ready at `ready`, that ran on a tier's machine from `begin` to
    `end`."""

    tier: int
    machine: int
    size: int
    ready: float
    begin: float
    end: float


@dataclass(slots=True)
class _Tier:
    batch: int
    duration: float
    rate: float
    free: list[float]
    served: float = 0.0  # requests given to this tier, by the planned size of batches

    def due(self) -> tuple[float, float]:
        """Virtual times at which the next batch may open and should be full."""
        return self.served / self.rate, (self.served + self.batch) / self.rate


@dataclass(slots=True)
class _Module:
    tiers: list[_Tier]
    bound: float
    rate: float
    assigned: float = 0.0
    runs: list[Run] = field(default_factory=list)

    def next_tier(self) -> int:
        """Whose batch is filled next."""
        now = self.assigned / self.rate
        due = [tier.due() for tier in self.tiers]
        ready = [n for n, (opens, _) in enumerate(due) if opens <= now * (1 + 1e-12) + 1e-12]
        if ready:
            return min(ready, key=lambda n: (due[n][1], n))
        return min(range(len(due)), key=lambda n: (due[n][0], n))

    def dispatch(self, number: int, size: int, ready: float) -> float:
        """Run a batch; when it is done."""
        tier = self.tiers[number]
        machine = min(range(len(tier.free)), key=lambda m: (tier.free[m], m))
        begin = max(ready, tier.free[machine])
        end = tier.free[machine] = begin + tier.duration
        tier.served += tier.batch
        self.assigned += tier.batch
        self.runs.append(Run(number, machine, size, ready, begin, end))
        return end


def poisson(rate: float, count: int, rng: np.random.Generator) -> Floats:
    """Arrival times with exponential gaps."""
    return np.cumsum(rng.exponential(1 / rate, count), dtype=np.float64)


def constant(rate: float, count: int, rng: np.random.Generator) -> Floats:
    """Arrival times with equal gaps from a random phase."""
    return (np.arange(count, dtype=np.float64) + rng.random()) / rate


def dispatch(plan: ModulePlan, arrivals: Floats, bound_s: float) -> tuple[Floats, list[Run]]:
    """When each arrival (ascending) is done, and the batches that ran. `bound_s`: the latency that
    was promised; a batch waits no longer than it leaves."""
    tiers = [
        _Tier(
            tier.configuration.batch,
            tier.configuration.duration_s,
            tier.rate,
            [0.0] * (tier.full + (tier.fraction > 0)),
        )
        for tier in plan.tiers
    ]
    module = _Module(tiers, bound_s, sum(tier.rate for tier in tiers))
    done = np.empty(len(arrivals))
    at = 0
    while at < len(arrivals):
        number = module.next_tier()
        tier = tiers[number]
        last = arrivals[at] + max(bound_s - tier.duration, 0.0)
        end = min(at + tier.batch, len(arrivals))
        in_time = int(np.searchsorted(arrivals[at:end], last * (1 + 1e-12), side="right"))
        size = max(in_time, 1)
        full = size == tier.batch
        ready = float(arrivals[at + size - 1]) if full else float(last)
        done[at : at + size] = module.dispatch(number, size, ready)
        at += size
    return done, module.runs


def run_application(
    application: Application, plan: ApplicationPlan, arrivals: Floats, seed: int = 0
) -> Floats:
    """End-to-end latency of every request of an application. A module's mean number of calls a
    request is its rate over that of the fastest first module's; a fraction of a call is a chance.
    A request enters a module when all its calls in the modules before are done. Slack beyond the
    modules' bounds is shared by them as waiting time."""
    rng = np.random.default_rng(seed)
    base = application.modules[application.order[0]].rate
    spare = application.slo_s / application.latency(plan.latencies)
    entered = {m: arrivals.copy() for m in range(len(application.modules))}
    finished: dict[int, Floats] = {}
    for number in application.order:
        for before, after in application.edges:
            if after == number:
                entered[number] = np.maximum(entered[number], finished[before])
        calls = _calls(application.modules[number].rate / base, len(arrivals), rng)
        owner = np.repeat(np.arange(len(arrivals)), calls)
        times = entered[number][owner]
        order = np.argsort(times, kind="stable")
        own = plan.modules[number]
        done, _ = dispatch(own, times[order], own.latency_s * spare)
        finished[number] = entered[number].copy()
        np.maximum.at(finished[number], owner[order], done)
    return np.max(list(finished.values()), axis=0) - arrivals  # type: ignore[no-any-return]


def _calls(mean: float, count: int, rng: np.random.Generator) -> NDArray[np.intp]:
    whole = int(mean + 1e-9)
    more = rng.random(count) < mean - whole
    return np.full(count, whole, dtype=np.intp) + more


@dataclass(frozen=True, slots=True)
class Promise:
    """Of simulated requests: the share within the target, latency quantiles and the maximum, in
    seconds."""

    within: float
    p50_s: float
    p95_s: float
    p99_s: float
    max_s: float


def promise(latencies: Floats, slo_s: float) -> Promise:
    """How a plan's latencies compare with its target."""
    p50, p95, p99 = (float(np.percentile(latencies, q)) for q in (50, 95, 99))
    within = float((latencies <= slo_s * (1 + 1e-9)).mean())
    return Promise(within, p50, p95, p99, float(latencies.max()))


def period(runs: Sequence[Run], begin_s: float, end_s: float) -> list[Run]:
    """The batches that run within a span of time."""
    return [run for run in runs if run.end > begin_s and run.begin < end_s]
