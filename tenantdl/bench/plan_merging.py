"""Merging of tenants into shared queues against all partitions, over seeded workloads.

Three of four cases rent functions (HarmonyBatch's four published models); the fourth has slots of
our own cores, quoted by Harpagon's inner planner. Rows are as in `plan`; "modules" counts tenants.
"""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import numpy as np

from tenantdl.api import Progress
from tenantdl.bench.plan_cases import measured_tables
from tenantdl.plan.functions import FunctionProfile, read_profiles
from tenantdl.plan.harmonybatch import functions_for, one_kind
from tenantdl.plan.merging import MERGINGS, alone, exhaustive
from tenantdl.plan.profile import Table
from tenantdl.plan.provision import Quote, Tenant, by_rate, slots

OURS = "harmonybatch"
TENANTS_MAX = 6
# Seconds: from what the model can just do on the largest function to four times BERT's and VGG's
# usual targets.
_SLOS = {"bert": (0.2, 2.0), "vgg19": (0.3, 2.0), "gpt2": (0.6, 4.0), "videomae": (0.5, 6.0)}
_OWN_EVERY = 4


def merging_rows(cases: range, seed: int, progress: Progress) -> list[dict[str, Any]]:
    """A row for each merging on each case."""
    profiles, tables = read_profiles(), measured_tables()
    rows = []
    for done, case in enumerate(cases, 1):
        rows += _case_rows(case, seed, profiles, tables)
        progress("merging", done / len(cases))
    return rows


def tenants_of(case: int, seed: int, slos: tuple[float, float], rate_max: float) -> list[Tenant]:
    """One to six tenants with targets in seconds and rates up to `rate_max` requests a second."""
    rng = np.random.default_rng((seed, 1, case))
    count = case % TENANTS_MAX + 1
    targets = np.exp(rng.uniform(np.log(slos[0]), np.log(slos[1]), count))
    rates = np.exp(rng.uniform(np.log(rate_max / 200), np.log(rate_max), count))
    return [Tenant(f"t{n}", float(targets[n]), float(rates[n])) for n in range(count)]


def _case_rows(
    case: int, seed: int, profiles: dict[str, FunctionProfile], tables: list[Table]
) -> list[dict[str, Any]]:
    baselines: dict[str, Quote] = {}
    quote: Quote
    if case % _OWN_EVERY == _OWN_EVERY - 1:
        table = tables[case // _OWN_EVERY % len(tables)]
        shortest = min(entry.duration_s for entry in table)
        most = 4 * max(entry.throughput for entry in table)
        tenants = tenants_of(case, seed, (2.5 * shortest, 25 * shortest), most)
        kind, quote = "merging-slots", by_rate(slots("model", table))
    else:
        name = sorted(profiles)[case // _OWN_EVERY % len(profiles)]
        tenants = tenants_of(case, seed, _SLOS[name], 40.0)
        kind, quote = f"merging-{name}", functions_for(profiles[name])
        baselines["batch"] = one_kind(profiles[name], "cpu")
    best = exhaustive(tenants, quote)
    asked = {name: partial(merging, tenants, quote) for name, merging in MERGINGS.items()}
    asked |= {name: partial(alone, tenants, own) for name, own in baselines.items()}
    rows = []
    for name, plan in asked.items():
        begin = time.perf_counter_ns()
        found = plan()
        millis = (time.perf_counter_ns() - begin) / 1e6
        row = {"planner": name, "case": case, "cost": found and found.cost, "millis": millis}
        optimum = best and best.cost
        row |= {"optimal_cost": optimum, "bound": optimum, "kind": kind, "modules": len(tenants)}
        rows.append(row)
    return rows
