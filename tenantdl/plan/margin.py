"""Planning for more than will come: chance and bursts break a bound that holds on average, so the
rate that is planned for is raised until enough of a simulation is within the target."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tenantdl.plan.dag import Application, ApplicationPlan, scaled
from tenantdl.plan.search import search
from tenantdl.plan.simulate import Floats, Promise, poisson, promise, run_application

MARGINS = (0.0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 1.5)
REQUESTS = 4000

Arrivals = Callable[[float, int, np.random.Generator], Floats]


@dataclass(frozen=True, slots=True)
class Held:
    """A plan made for (1 + `margin`) times the rate, and what it held when the rate came."""

    margin: float
    plan: ApplicationPlan
    promise: Promise


def simulated(
    application: Application,
    plan: ApplicationPlan,
    *,
    arrivals: Arrivals = poisson,
    seed: int = 0,
    requests: int = REQUESTS,
) -> Promise:
    """What a plan holds of its promise when requests come by `arrivals` (simulated)."""
    rate = application.modules[application.order[0]].rate
    times = arrivals(rate, requests, np.random.default_rng(seed))
    return promise(run_application(application, plan, times, seed), application.slo_s)


def hold(
    application: Application, share: float, *, arrivals: Arrivals = poisson, seed: int = 0
) -> Held | None:
    """The least margin with which `share` of simulated requests is within the target; if none of
    MARGINS is enough, the one that holds most. None where there is no plan at all."""
    best: Held | None = None
    for margin in MARGINS:
        plan = search(scaled(application, rate=1 + margin))
        if plan is None:
            continue
        found = Held(margin, plan, simulated(application, plan, arrivals=arrivals, seed=seed))
        if found.promise.within >= share:
            return found
        if best is None or found.promise.within > best.promise.within:
            best = found
    return best
