"""Costs of variants on several core counts, slowdowns, and the needs that follow from them."""

from __future__ import annotations

import pytest

from tenantdl.sched.config import PlanSpec, VariantSpec
from tenantdl.sched.costs import PlanCosts
from tenantdl.sched.demand import NeedsOf, fewest
from tenantdl.units import MS, Ns

GREEDY = VariantSpec((1, 2, 4), ((800, 200), (400, 110), (220, 100)), (1000, 1500, 3000), 1000)
MODEST = VariantSpec((1, 2, 4), ((880, 220), (440, 121), (242, 110)), (1000, 1100, 1200), 400)


def costs(cores_max: int = 4) -> PlanCosts:
    return PlanCosts(PlanSpec((GREEDY, MODEST)), Ns(MS), cores_max)


def test_any_number_of_cores_costs_what_the_next_lower_known_one_does() -> None:
    plan = costs()
    assert [plan.at(0, cores).remaining(0) for cores in (1, 2, 3, 4)] == [1000, 510, 510, 320]
    assert [plan.usable(cores) for cores in (1, 3, 4)] == [1, 2, 4]
    assert plan.remaining(0) == 320
    assert costs(3).counts == (1, 2)
    assert costs(3).remaining(0) == 510


def test_slowdowns_are_linear_between_levels() -> None:
    plan = costs()
    assert [plan.slowdown(0, p) for p in (0, 250, 500, 750, 1000, 5000)] == [
        1000,
        1250,
        1500,
        2250,
        3000,
        3000,
    ]
    plan.learn(0, (1000, 1010))
    assert plan.slowdown(0, 500) == 1005


def test_the_best_variant_depends_on_the_pressure() -> None:
    plan = costs()
    assert plan.best_variant(4, 0, 0) == 0
    assert plan.best_variant(4, 0, 1000) == 1


def test_pressure_follows_the_speed_up_not_the_cores() -> None:
    assert [costs().exerts(0, cores) for cores in (1, 2, 4)] == [1000, 1960, 3125]
    assert costs().exerts(1, 1) == 400


def test_what_was_slowed_down_as_expected_does_not_move_the_costs() -> None:
    plan = costs()
    for _ in range(20):
        plan.observe(0, 4, 0, 2, Ns(640), pressure=667)
    assert plan.at(0, 4).remaining(0) == pytest.approx(320, rel=0.02)
    for _ in range(60):
        plan.observe(0, 4, 0, 2, Ns(640), pressure=0)
    assert plan.at(0, 4).remaining(0) == pytest.approx(640, rel=0.03)
    # Counts that nobody has tried are taken to have drifted along, to within an eighth.
    assert plan.at(0, 2).remaining(0) == pytest.approx(510 * 2, rel=1 / 8)


def test_needs_are_the_fewest_cores_inside_the_budget() -> None:
    plan = costs()
    assert fewest(plan, 0, 0, 2, 510) == 2
    assert fewest(plan, 0, 0, 2, 509) == 4
    # None is enough: the last cores bring less than a quarter here, so two will do.
    assert fewest(plan, 0, 1, 2, 50) == 2
    needs = NeedsOf()(plan, Ns(600))
    # 92 % of 600 ns, four fifths of it for the first segment.
    assert needs.budgets == (552, 110, 0)
    assert (needs.average, needs.segments) == (2, (2, 2))
    assert NeedsOf()(plan, Ns(600), 0, 2000).average == 4
