"""The plan of one module: how many machines of which configuration, and the latency they promise.

Batch-aware dispatch (Harpagon §3) hands whole batches of consecutive requests to machines in
descending throughput-price ratio. A batch on a machine is then formed at the rate w of all that is
left for machines of the same or a lower ratio, so the worst latency is d + b/w. Full machines of
equal ratio count each other; a fractional machine comes behind them and counts only itself and what
follows it. The bound takes arrivals at their average rate (see `simulate` for what chance adds).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tenantdl.plan.profile import Configuration, tie_groups


@dataclass(frozen=True, slots=True)
class Tier:
    """`full` machines of a configuration that are never idle, and one that is held for `fraction`
    of the time (0 ≤ fraction < 1)."""

    configuration: Configuration
    full: int
    fraction: float = 0.0

    @property
    def machines(self) -> float:
        """Machines held, fractions counting."""
        return self.full + self.fraction

    @property
    def rate(self) -> float:
        """Requests a second that these machines take."""
        return self.machines * self.configuration.throughput

    @property
    def cost(self) -> float:
        """Price of the machines held."""
        return self.machines * self.configuration.price


@dataclass(frozen=True, slots=True)
class ModulePlan:
    """`tiers` in descending ratio take `rate` requests a second and `dummy` more that do not exist:
    machines are paid for as if they came. `latency_s`: worst case at average rates."""

    rate: float
    dummy: float
    tiers: tuple[Tier, ...]
    latency_s: float

    @property
    def cost(self) -> float:
        """Price of all machines held."""
        return sum(tier.cost for tier in self.tiers)

    @property
    def machines(self) -> float:
        """Machines held, fractions counting."""
        return sum(tier.machines for tier in self.tiers)


Latency = Callable[[Sequence[Tier]], float]


def batch_aware_latency(tiers: Sequence[Tier]) -> float:
    """Worst latency in seconds under batch-aware dispatch: d + b/w, ties included."""
    return max((latency for _, _, latency in latencies(tiers)), default=0.0)


def latencies(tiers: Sequence[Tier]) -> list[tuple[Tier, bool, float]]:
    """Latency of every kind of machine in use: (tier, whether full, seconds)."""
    table = [tier.configuration for tier in tiers]
    found = []
    below = 0.0
    for begin, end in reversed(tie_groups(table)):
        for tier in reversed(tiers[begin:end]):
            if tier.fraction > 0:
                below += tier.fraction * tier.configuration.throughput
                found.append((tier, False, _collected(tier.configuration, below)))
        below += sum(tier.full * tier.configuration.throughput for tier in tiers[begin:end])
        for tier in reversed(tiers[begin:end]):
            if tier.full:
                found.append((tier, True, _collected(tier.configuration, below)))
    return found[::-1]


def round_robin_latency(tiers: Sequence[Tier]) -> float:
    """Worst latency in seconds when requests go round one by one: every machine collects its batch
    at its own rate, so 2d on a full one and d + b/f on one of rate f."""
    worst = 0.0
    for tier in tiers:
        configuration = tier.configuration
        if tier.full:
            worst = max(worst, 2 * configuration.duration_s)
        if tier.fraction > 0:
            own = tier.fraction * configuration.throughput
            worst = max(worst, _collected(configuration, own))
    return worst


LATENCIES: dict[str, Latency] = {
    "batch-aware": batch_aware_latency,
    "round-robin": round_robin_latency,
}


def plan_of(
    rate: float, tiers: Sequence[Tier], latency: Latency = batch_aware_latency
) -> ModulePlan:
    """A plan out of tiers: empty ones left out, the order made right, the surplus called dummy."""
    kept = [tier for tier in tiers if tier.machines > 0]
    kept.sort(key=lambda t: (-t.configuration.ratio, -t.configuration.batch))
    served = sum(tier.rate for tier in kept)
    dummy = served - rate if served > rate * (1 + 1e-12) else 0.0
    return ModulePlan(rate, dummy, tuple(kept), latency(kept))


def _collected(configuration: Configuration, rate: float) -> float:
    return configuration.duration_s + configuration.batch / rate
