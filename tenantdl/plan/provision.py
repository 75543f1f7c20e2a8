"""What both planners share: tenants that may share a queue, and what serving a queue costs.

The inner planner answers `provision(rate, budget) -> offer`. The outer one (`merging`) asks for
quotes of whole groups; `by_rate` turns any provision into quotes, where a group's budget is its
tightest target. So merging works over Harpagon's slots as over functions to rent.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from tenantdl.plan.dag import Application, ApplicationPlan, Module
from tenantdl.plan.profile import Table
from tenantdl.plan.search import search


@dataclass(frozen=True, slots=True)
class Tenant:
    """Who sends `rate` requests a second, each to be answered within `slo_s`."""

    name: str
    slo_s: float
    rate: float


Group: TypeAlias = tuple[Tenant, ...]


@dataclass(frozen=True, slots=True)
class Offer:
    """A way to serve: price a unit of time, and in words what is held. `plan`: an inner plan.
    `accelerated`: runs on slices of an accelerator. `batch` and `timeouts_s` (one a tenant): when a
    queue's batch goes off."""

    cost: float
    what: str
    plan: ApplicationPlan | None = None
    accelerated: bool = False
    batch: int = 1
    timeouts_s: tuple[float, ...] = ()


Provision = Callable[[float, float], Offer | None]
Quote = Callable[[Group], Offer | None]


def total_rate(group: Group) -> float:
    """Requests a second of all tenants."""
    return sum(tenant.rate for tenant in group)


def by_rate(provision: Provision) -> Quote:
    """Quotes of a provision: a group is its total rate within its tightest target."""

    def quote(group: Group) -> Offer | None:
        return provision(total_rate(group), min(tenant.slo_s for tenant in group))

    return quote


def slots(name: str, table: Table) -> Provision:
    """Harpagon's inner planner for one model: slots of cores, batches, fractions."""

    def provision(rate: float, budget_s: float) -> Offer | None:
        plan = search(Application(name, (Module(name, rate, table),), (), budget_s))
        if plan is None:
            return None
        own = plan.modules[0]
        words = (
            f"{tier.machines:.3g} × {tier.configuration.hardware}, batch {tier.configuration.batch}"
            for tier in own.tiers
        )
        largest = max(tier.configuration.batch for tier in own.tiers)
        return Offer(plan.cost, "; ".join(words), plan, batch=largest)

    return provision
