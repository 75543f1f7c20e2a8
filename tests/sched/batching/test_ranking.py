"""Hulls give the answers of looking at all."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from tenantdl.sched.batching.distribution import from_samples
from tenantdl.sched.batching.ranking import Argmax, Hull
from tenantdl.sched.batching.score import ScoreTable

SAMPLES = st.lists(st.integers(1, 200), min_size=1, max_size=20).map(sorted)
# A request (table, time to its deadline) comes, or (−1, wait) passes time and takes the best.
STEPS = st.lists(st.tuples(st.integers(-1, 2), st.integers(0, 400)), max_size=120)


@given(st.lists(SAMPLES, min_size=3, max_size=3), STEPS)
@settings(max_examples=150)
def test_hull_equals_argmax(samples: list[list[int]], steps: list[tuple[int, int]]) -> None:
    tables = [ScoreTable(from_samples(s), 60.0, 1 / (sum(s) / len(s))) for s in samples]
    plain, hull, now = Argmax(), Hull(), 0
    for number, (kind, amount) in enumerate(steps):
        if kind >= 0:
            for ranking in (plain, hull):
                ranking.add(number, now + amount, tables[kind])
        else:
            now += amount
            best = plain.best(now)
            assert hull.best(now) == best
            if best >= 0 and amount % 3:
                plain.remove(best)
                hull.remove(best)
    while (best := plain.best(now)) >= 0:
        assert hull.best(now) == best
        plain.remove(best)
        hull.remove(best)
    assert hull.best(now) == -1


def test_many_blocks_and_a_moving_origin() -> None:
    draw = random.Random(4)
    tables = [
        ScoreTable(from_samples(sorted(draw.choices(range(50, 500), k=200))), 100.0, 1 / mean)
        for mean in (200, 300)
    ]
    plain, hull, now = Argmax(), Hull(), 0
    for number in range(1200):
        deadline, table = now + draw.randrange(100, 3000), draw.choice(tables)
        plain.add(number, deadline, table)
        hull.add(number, deadline, table)
        now += draw.randrange(10)
        if number % 2:
            best = plain.best(now)
            assert hull.best(now) == best
            plain.remove(best)
            hull.remove(best)
    assert now > 30 * 100  # the origin has moved
