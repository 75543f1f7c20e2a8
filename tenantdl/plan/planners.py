"""All planners of applications by name: ours, the paper's, its ablations and its baselines."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from tenantdl.plan.baselines import clipper, inferline, nexus, scrooge
from tenantdl.plan.dag import Application, ApplicationPlan
from tenantdl.plan.harpagon import ABLATIONS, PAPER
from tenantdl.plan.search import search
from tenantdl.plan.splitting import split

Planner = Callable[[Application], ApplicationPlan | None]

OURS = "harpagon"
AS_PUBLISHED = "harpagon-paper"
BASELINES: dict[str, Planner] = {
    "nexus": nexus,
    "scrooge": scrooge,
    "inferline": inferline,
    "clipper": clipper,
}
PLANNERS: dict[str, Planner] = {
    OURS: search,
    AS_PUBLISHED: partial(split, rules=PAPER),
    **{name: partial(split, rules=rules) for name, rules in ABLATIONS.items()},
    **BASELINES,
}
