"""Tables that follow what blocks take: slowly, relative to a calm machine, never the wrong way."""

from __future__ import annotations

import random

from tenantdl.sched.config import PlanSpec, VariantSpec
from tenantdl.sched.correction import Correction
from tenantdl.sched.costs import PlanCosts
from tenantdl.units import MS, Ns

TABLE = (1000, 1100, 1200)


def fed(
    correction: Correction, table: tuple[int, ...], blocks: list[tuple[int, int]]
) -> tuple[int, ...]:
    """The table after blocks of (pressure, ratio in 1/1000)."""
    for pressure, ratio in blocks:
        table = correction.observe(table, pressure, 1_000_000, ratio * 1000) or table
    return table


def test_a_table_that_is_right_stays() -> None:
    rng = random.Random(1)
    blocks = [
        (p, TABLE[p // 500] + rng.randint(-40, 40)) for _ in range(400) for p in (0, 500, 1000)
    ]
    correction = Correction()
    assert fed(correction, TABLE, blocks) == TABLE
    assert not correction.alarmed


def test_a_wrong_level_is_learned_and_what_lies_above_follows() -> None:
    correction = Correction()
    table = fed(correction, TABLE, [(0, 1000), (500, 1500)] * 200)
    assert table[0] == 1000
    assert 1450 <= table[1] <= 1550
    assert table[2] >= table[1]
    assert correction.alarmed


def test_a_machine_that_is_slow_altogether_changes_nothing() -> None:
    correction = Correction()
    assert fed(correction, TABLE, [(0, 1600), (500, 1760), (1000, 1920)] * 300) == TABLE


def test_without_calm_blocks_or_with_few_nothing_is_known() -> None:
    assert fed(Correction(), TABLE, [(1000, 2000)] * 500) == TABLE
    assert fed(Correction(), TABLE, [(0, 1000), (1000, 2000)] * 30) == TABLE


def test_stalls_are_not_slowdowns() -> None:
    correction = Correction()
    assert fed(correction, TABLE, [(0, 1000), (500, 40_000), (500, 1100)] * 200) == TABLE


def test_variants_that_nothing_disturbs_have_nothing_to_correct() -> None:
    assert fed(Correction(), (1000,), [(0, 1000), (1000, 3000)] * 300) == (1000,)


def test_costs_use_the_better_table() -> None:
    spec = PlanSpec((VariantSpec((1,), ((1_000_000,),), TABLE, 1000),))
    costs = PlanCosts(spec, Ns(MS), 4)
    for _ in range(300):
        costs.observe(0, 1, 0, 1, Ns(1_000_000), 0)
        costs.observe(0, 1, 0, 1, Ns(1_800_000), 1000)
    assert costs.slowdown(0, 1000) > 1500
    assert costs.alarms >= 1
