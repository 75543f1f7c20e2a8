"""What plans take on this machine: operator times on every core count, segments cut by them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np

from tenantdl.bundle.load import LoadedBundle, load_bundle
from tenantdl.bundle.manifest import ALIGNMENT, Plan, Variant
from tenantdl.compile.segment import costs_of, cut, measure_ns
from tenantdl.compile.variants import ONE_WAY, Ways, with_variants
from tenantdl.exec.runner import Runner
from tenantdl.machine import this_machine

# Of a plan for one request, and of the others: sixteen requests take sixteen times as long.
_RUNS, _RUNS_MANY = 5, 1


def measured_plans(
    plans: Sequence[Plan], counts: Sequence[int], folder: Path, ways: Ways = ONE_WAY
) -> list[Plan]:
    """`plans` of the bundle in `folder` with segments and their measured costs on one core and on
    each of `counts` that this machine has; the first in variants made of `ways`. Moves the calling
    thread's affinity."""
    bundle = load_bundle(folder, verify=False)
    # One arena for all: its pages are there when the first operator is timed.
    arena = np.zeros(max(plan.arena_bytes for plan in plans) + ALIGNMENT, np.uint8)
    arena = arena[-arena.ctypes.data % ALIGNMENT :]
    found = []
    for number, plan in enumerate(plans):
        arena[:] = 0
        if ways.substitutes and not number:
            found.append(with_variants(bundle, plan, ways, counts, arena.data))
            continue
        runs = _RUNS if plan.batch == plans[0].batch else _RUNS_MANY
        found.append(_measured(bundle, plan, counts, arena.data, runs))
    return found


def _measured(
    bundle: LoadedBundle, plan: Plan, counts: Sequence[int], arena: memoryview, runs: int
) -> Plan:
    usable = this_machine().cores
    runner = Runner(bundle, plan, arena)
    groups = [usable[:count] for count in sorted({1, *counts}) if count <= len(usable)]
    costs = measure_ns(runner, groups, runs)
    segments = cut(costs[0], plan.calls)
    sums = tuple(costs_of(segments, column) for column in costs)
    only = Variant("latency", (), tuple(map(len, groups)), sums, (), (), ())
    return msgspec.structs.replace(
        plan, segments=segments, cost_source="measured", variants=(only,)
    )
