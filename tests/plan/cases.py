"""Small applications for the planner's tests."""

from __future__ import annotations

import numpy as np

from tenantdl.plan.dag import Application, Module
from tenantdl.plan.profile import Configuration, Table

# Harpagon's example: three batch sizes of one module, at 198 requests a second within one second.
EXAMPLE: Table = tuple(Configuration(b, d) for b, d in ((2, 0.1), (8, 0.25), (32, 0.8)))
EXAMPLE_RATE, EXAMPLE_BUDGET = 198.0, 1.0

DIAMOND = ((0, 1), (0, 2), (1, 3), (2, 3))
SHAPES = {1: [()], 2: [((0, 1),)], 3: [((0, 1), (1, 2)), ((0, 1), (0, 2))], 4: [DIAMOND]}


def example() -> Application:
    return Application("example", (Module("m", EXAMPLE_RATE, EXAMPLE),), (), EXAMPLE_BUDGET)


def random_application(seed: int, count: int | None = None) -> Application:
    rng = np.random.default_rng(seed)
    count = count or int(rng.integers(1, 5))
    shapes = SHAPES[count]
    modules = tuple(
        Module(f"m{n}", float(rng.uniform(0.3, 6) * max(c.throughput for c in table)), table)
        for n, table in enumerate(_table(rng) for _ in range(count))
    )
    edges = shapes[int(rng.integers(len(shapes)))]
    shortest = [min(c.duration_s for c in module.table) for module in modules]
    least = Application("a", modules, edges, 1.0).latency(shortest)
    return Application("a", modules, edges, least * float(rng.uniform(2.5, 6)))


def _table(rng: np.random.Generator) -> Table:
    start, each = rng.uniform(0.02, 0.3), rng.uniform(0.01, 0.1)
    return tuple(
        Configuration(batch, float((start + each * batch) / speed), name, price)
        for name, speed, price in (("small", 1.0, 1.0), ("large", 2.0, 1.7))
        for batch in (1, 4, 16)
    )
