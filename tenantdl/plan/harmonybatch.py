"""HarmonyBatch (§4): which function serves a group of tenants with different targets.

A batch is sent off when it is full or when its oldest request of some tenant w has waited t_w.
The group's equivalent timeout says how long the first request of a batch waits on average; so many
requests can come meanwhile that b ≤ ⌊r·T⌋ + 1 may be asked for.
"""

from __future__ import annotations

import numpy as np

from tenantdl.plan.functions import (
    PRICES,
    Billing,
    Floats,
    FunctionProfile,
    Functions,
    Prices,
    catalogue,
)
from tenantdl.plan.provision import Group, Offer, Quote, total_rate

_WHOLE = 1e-9


def equivalent_timeout(timeouts: Floats, rates: Floats) -> Floats:
    """Timeout [tenant, …] of tenants with ascending timeouts as one, folded two at a time: with
    probability r2/(r1 + r2) the first of a batch is of the second tenant, and then waits until one
    of the first comes and its timeout passes, at most T2."""
    timeout, rate = timeouts[0], rates[0]
    for other, own in zip(timeouts[1:], rates[1:], strict=True):
        longer = other - timeout
        timeout = timeout + own / (rate + own) * -np.expm1(-rate * longer) / rate
        rate = rate + own
    return timeout  # type: ignore[no-any-return]


def functions_for(
    profile: FunctionProfile, billing: Billing = "whole-seconds", prices: Prices = PRICES
) -> Quote:
    """Quotes for groups on the cheapest function of either kind."""
    cpu, sliced = catalogue(profile, billing, prices)
    return _quote_of(cpu, sliced)


def one_kind(
    profile: FunctionProfile,
    kind: str,
    billing: Billing = "whole-seconds",
    prices: Prices = PRICES,
) -> Quote:
    """Quotes for groups on functions of one kind, `cpu` or `sliced`."""
    return _quote_of(*(f for f in catalogue(profile, billing, prices) if f.kind == kind))


def _quote_of(*kinds: Functions) -> Quote:
    def quote(group: Group) -> Offer | None:
        offers = [offer for kind in kinds if (offer := cheapest(kind, group)) is not None]
        return min(offers, key=lambda offer: offer.cost, default=None)

    return quote


def cheapest(functions: Functions, group: Group) -> Offer | None:
    """The cheapest function that keeps all targets of a group; None if none does."""
    tenants = sorted(group, key=lambda tenant: (tenant.slo_s, tenant.name))
    slos = np.array([tenant.slo_s for tenant in tenants])
    rates = np.array([tenant.rate for tenant in tenants])
    order = np.flatnonzero(functions.latency_max <= slos[0] * (1 + _WHOLE))
    if not len(order):
        return None
    timeouts = np.maximum(slos[:, None] - functions.latency_max[order], 0)
    together = equivalent_timeout(timeouts, rates)
    rate = total_rate(group)
    reached = np.floor(rate * together + _WHOLE) + 1
    fits = np.flatnonzero(functions.batch[order] <= reached)
    if not len(fits):
        return None
    best = fits[np.argmin(functions.cost[order[fits]])]
    row = order[best]
    size, batch = float(functions.size[row]), int(functions.batch[row])
    unit = "vCPU" if functions.kind == "cpu" else "slices"
    # Timeouts in the order that the caller gave.
    by_name = dict(zip((t.name for t in tenants), timeouts[:, best], strict=True))
    return Offer(
        cost=float(functions.cost[row]) * rate,
        what=f"{size:g} {unit}, batch {batch}",
        accelerated=functions.kind == "sliced",
        batch=batch,
        timeouts_s=tuple(float(by_name[tenant.name]) for tenant in group),
    )
