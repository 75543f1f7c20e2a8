"""What Harpagon's paper compares with. All four are reconstructions from short descriptions: which
latency bound, how many configurations a module, how latency is split. All of them send requests
round, so a batch takes 2d, and none adds dummies.

`clipper`    latency split evenly along the deepest path; one configuration a module.
`inferline`  every module starts at its fastest configuration; the change that saves most cost is
             taken as long as the target holds; one configuration a module.
`nexus`      the cheapest split over the modules' steps; two configurations a module (as many full
             machines as fit, the rest on another), all of one hardware.
`scrooge`    the same over all hardware at once.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

from tenantdl.plan.dag import Application, ApplicationPlan, Module
from tenantdl.plan.harpagon import PAPER, schedule
from tenantdl.plan.splitting import Modules, Steps, descend

_SPLITS_MAX = 200_000
ONE_TUPLE = replace(PAPER, dispatch="round-robin", tuples_max=1, dummy=False, reassign=False)
TWO_TUPLES = replace(ONE_TUPLE, tuples_max=2)


def clipper(application: Application) -> ApplicationPlan | None:
    """Even split, one configuration a module (reconstruction)."""
    depth = max(len(path) for path in application.paths)
    plans = [
        schedule(module.table, module.rate, application.slo_s / depth, ONE_TUPLE)
        for module in application.modules
    ]
    known = tuple(plan for plan in plans if plan is not None)
    return ApplicationPlan(known, "clipper") if len(known) == len(plans) else None


def inferline(application: Application) -> ApplicationPlan | None:
    """Greedy by cost from the fastest configurations, one a module (reconstruction)."""
    modules = Modules(application, ONE_TUPLE)
    steps = [modules.steps(number) for number in range(len(application.modules))]
    if not all(steps) or not application.fits([own[0][0] for own in steps]):
        return None
    alone: list[tuple[int, ...]] = [(number,) for number in range(len(steps))]
    end = descend(application, steps, alone, [0] * len(steps), by_latency=False)[-1]
    return _chosen(steps, end, "inferline")


def scrooge(application: Application) -> ApplicationPlan | None:
    """Best split, two configurations a module (reconstruction)."""
    modules = Modules(application, TWO_TUPLES)
    steps = [modules.steps(number) for number in range(len(application.modules))]
    return _best_split(application, steps, "scrooge")


def nexus(application: Application) -> ApplicationPlan | None:
    """Best split, two configurations a module, one hardware for all (reconstruction)."""
    best: ApplicationPlan | None = None
    for hardware in sorted({c.hardware for module in application.modules for c in module.table}):
        tables = [
            tuple(c for c in module.table if c.hardware == hardware)
            for module in application.modules
        ]
        if not all(tables):
            continue
        own = tuple(
            Module(module.name, module.rate, table)
            for module, table in zip(application.modules, tables, strict=True)
        )
        plan = scrooge(Application(application.name, own, application.edges, application.slo_s))
        if plan is not None and (best is None or plan.cost < best.cost):
            best = ApplicationPlan(plan.modules, "nexus")
    return best


def _best_split(
    application: Application, steps: Sequence[Steps], name: str
) -> ApplicationPlan | None:
    if not all(steps):
        return None
    best: tuple[float, tuple[int, ...]] | None = None
    places = itertools.product(*(range(len(own)) for own in steps))
    for state in itertools.islice(places, _SPLITS_MAX):
        pairs = list(zip(steps, state, strict=True))
        cost = sum(own[place][1].cost for own, place in pairs)
        if best is not None and cost >= best[0]:
            continue
        if application.fits([own[place][0] for own, place in pairs]):
            best = (cost, state)
    return None if best is None else _chosen(steps, best[1], name)


def _chosen(steps: Sequence[Steps], state: Sequence[int], name: str) -> ApplicationPlan:
    plans = tuple(own[place][1] for own, place in zip(steps, state, strict=True))
    return ApplicationPlan(plans, name)
