"""Seeded workloads for planners: one module or a DAG of two to four, with random tables or profiles
measured on our kernels. Case k of a seed is the same however many are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tenantdl.plan.dag import Application, Module
from tenantdl.plan.profile import Configuration, Table, monotone
from tenantdl.plan.tables import read_table, table_of

PROFILES = Path(__file__).with_name("plan_profiles.json")
MODULES_MAX = 4
_BATCHES = (1, 2, 4, 8, 16, 32, 64)
_SHAPES: dict[int, list[tuple[tuple[int, int], ...]]] = {
    1: [()],
    2: [((0, 1),)],
    3: [((0, 1), (1, 2)), ((0, 1), (0, 2)), ((0, 2), (1, 2))],
    4: [
        ((0, 1), (1, 2), (2, 3)),
        ((0, 1), (0, 2), (1, 3), (2, 3)),
        ((0, 1), (0, 2), (0, 3)),
        ((0, 1), (1, 2), (1, 3)),
        ((0, 2), (0, 3), (1, 3)),
    ],
}


def measured_tables(path: Path = PROFILES) -> list[Table]:
    """Tables of the models measured on this project's kernels, by name."""
    return [table_of(profile) for _, profile in sorted(read_table(path).items())]


def application(seed: int, case: int, measured: Sequence[Table]) -> Application:
    """Case number `case`: sizes 1 to 4 in turn, and of each four of a size one with measured
    tables."""
    rng = np.random.default_rng((seed, case))
    count = case % MODULES_MAX + 1
    own = case // MODULES_MAX % 4 == 3
    tables = [
        measured[int(rng.integers(len(measured)))] if own else _table(rng) for _ in range(count)
    ]
    load = np.exp(rng.uniform(np.log(0.3), np.log(12), count))
    modules = tuple(
        Module(f"m{n}", float(load[n] * max(c.throughput for c in table)), table)
        for n, table in enumerate(tables)
    )
    edges = _SHAPES[count][int(rng.integers(len(_SHAPES[count])))]
    shortest = [min(entry.duration_s for entry in table) for table in tables]
    least = Application("case", modules, edges, 1.0).latency(shortest)
    name = f"{'measured' if own else 'random'}-{count}"
    return Application(name, modules, edges, float(least * rng.uniform(1.8, 8)))


def _table(rng: np.random.Generator) -> Table:
    """A model whose batch takes a start and something each, with 5 % noise, on one or two kinds of
    hardware."""
    batches = np.sort(rng.choice(_BATCHES, size=int(rng.integers(3, 7)), replace=False))
    start = rng.uniform(0.02, 0.3)
    each = start * rng.uniform(0.05, 0.9)
    table: list[Configuration] = []
    for kind in range(int(rng.integers(1, 3))):
        speed = 1.0 if kind == 0 else rng.uniform(1.5, 4)
        price = 1.0 if kind == 0 else round(float(speed * rng.uniform(0.6, 1.2)), 2)
        noise = rng.uniform(0.95, 1.05, len(batches))
        durations = monotone([float(d) for d in (start + each * batches) / speed * noise])
        table += [
            Configuration(int(batch), duration, f"kind {kind}", price)
            for batch, duration in zip(batches, durations, strict=True)
        ]
    return tuple(table)
