"""What plans take on this machine: operator times on every core count, segments cut by them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np

from tenantdl.bundle.load import load_bundle
from tenantdl.bundle.manifest import ALIGNMENT, Call, Plan, Variant
from tenantdl.compile.segment import costs_of, cut, measure_ns
from tenantdl.compile.variants import ONE_WAY, Ways, with_variants
from tenantdl.exec.runner import Runner
from tenantdl.ids import CoreId
from tenantdl.machine import this_machine

# Of the first plan, of others for one request, and for several: four take four times as long.
_RUNS_FIRST, _RUNS, _RUNS_MANY = 5, 3, 1
# Plans for more requests repeat the calls of these, and so do their times; where no call is for
# several requests at once, those of a plan for two say it all.
_REQUESTS_MAX = 4


def measured_plans(
    plans: Sequence[Plan], counts: Sequence[int], folder: Path, ways: Ways = ONE_WAY
) -> list[Plan]:
    """`plans` of the bundle in `folder` with segments and their measured costs on one core and on
    each of `counts` that this machine has; the first in variants made of `ways`. Plans for many
    requests follow those for fewer of the same shape, and are not run. Moves the calling thread's
    affinity."""
    bundle = load_bundle(folder, verify=False)
    # One arena for all: its pages are there when the first operator is timed.
    arena = np.zeros(max(plan.arena_bytes for plan in plans) + ALIGNMENT, np.uint8)
    arena = arena[-arena.ctypes.data % ALIGNMENT :]
    usable = this_machine().cores
    groups = [usable[:count] for count in sorted({1, *counts}) if count <= len(usable)]
    found: list[Plan] = []
    known: tuple[Plan, list[list[int]]] | None = None
    for number, plan in enumerate(plans):
        if known and _repeats(plan, known[0], plan.batch // plans[0].batch):
            found.append(_with_costs(plan, groups, repeated(plan, *known), "estimated"))
            continue
        arena[:] = 0
        if ways.substitutes and not number:
            found.append(with_variants(bundle, plan, ways, counts, arena.data))
            continue
        one = plan.batch == plans[0].batch
        runs = _RUNS_MANY if not one else _RUNS if number else _RUNS_FIRST
        costs = measure_ns(Runner(bundle, plan, arena.data), groups, runs)
        known = None if one else (plan, costs)
        found.append(_with_costs(plan, groups, costs, "measured"))
    return found


def _repeats(plan: Plan, smaller: Plan, requests: int) -> bool:
    """Whether the times of `smaller`, which is for several requests, say what `plan`, for
    `requests`, takes."""
    pairs = zip(plan.inputs, smaller.inputs, strict=True)
    if not all(one.shape[1:] == two.shape[1:] for one, two in pairs):
        return False
    few, many = ({c.symbol for c in p.calls if c.kind != "layout"} for p in (smaller, plan))
    return requests > _REQUESTS_MAX or few == many


def repeated(plan: Plan, smaller: Plan, costs: Sequence[Sequence[int]]) -> list[list[int]]:
    """What the calls of `plan` take if they are as those of `smaller` (for fewer requests of the
    same shape), measured as `costs` on each group: the first call of an operator finds its weights
    in memory, the others in a cache. Calls for several requests at once take as long as their
    arithmetic says, or their bytes."""
    first: dict[tuple[str, str], Call] = {}
    places: dict[tuple[str, str], list[int]] = {}
    for place, call in enumerate(smaller.calls):
        first.setdefault((call.name, call.kind), call)
        places.setdefault((call.name, call.kind), []).append(place)
    begun: set[tuple[str, str]] = set()
    calls: list[tuple[list[int], float]] = []
    for call in plan.calls:
        key = call.name, call.kind
        like, own = first[key], places[key]
        factor = call.flops / like.flops if like.flops else call.bytes / max(1, like.bytes)
        calls.append((own[1:] or own if key in begun else own[:1], factor))
        begun.add(key)
    return [
        [round(factor * sum(column[i] for i in own) / len(own)) for own, factor in calls]
        for column in costs
    ]


def _with_costs(
    plan: Plan,
    groups: Sequence[Sequence[CoreId]],
    costs: Sequence[Sequence[int]],
    source: Literal["measured", "estimated"],
) -> Plan:
    segments = cut(costs[0], plan.calls)
    sums = tuple(costs_of(segments, column) for column in costs)
    only = Variant("latency", (), tuple(map(len, groups)), sums, (), (), ())
    return msgspec.structs.replace(plan, segments=segments, cost_source=source, variants=(only,))
