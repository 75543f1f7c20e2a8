"""Goldens of the paper's example, and what each part is worth there."""

from __future__ import annotations

import pytest
from plan.cases import EXAMPLE, EXAMPLE_BUDGET, EXAMPLE_RATE

from tenantdl.plan.harpagon import ABLATIONS, PAPER, Rules, schedule
from tenantdl.plan.module import LATENCIES

B2, B8, B32 = EXAMPLE


@pytest.mark.parametrize(
    ("rules", "machines"),
    [
        (Rules(dispatch="round-robin", dummy=False), {8: 6, 2: 0.3}),
        (Rules(tuples_max=2, dummy=False), {32: 4, 2: 1.9}),
        (Rules(dummy=False), {32: 4, 8: 1, 2: 0.3}),
        (Rules(), {32: 5}),
    ],
    ids=["6.3", "5.9", "5.3", "5.0"],
)
def test_machines_of_the_example(rules: Rules, machines: dict[int, float]) -> None:
    plan = schedule(EXAMPLE, EXAMPLE_RATE, EXAMPLE_BUDGET, rules)
    assert plan is not None
    found = {tier.configuration.batch: tier.machines for tier in plan.tiers}
    assert found == pytest.approx(machines)
    assert plan.cost == pytest.approx(sum(machines.values()))


@pytest.mark.parametrize("name", sorted(ABLATIONS))
@pytest.mark.parametrize("rate", [1.0, 7.0, 33.0, 198.0, 1000.0])
def test_plans_keep_budget_and_rate(name: str, rate: float) -> None:
    rules = ABLATIONS[name]
    for budget in (0.2, 0.5, 1.0, 3.0):
        plan = schedule(EXAMPLE, rate, budget, rules)
        if plan is None:
            continue
        assert LATENCIES[rules.dispatch](plan.tiers) <= budget * (1 + 1e-6)
        assert sum(tier.rate for tier in plan.tiers) >= rate * (1 - 1e-9)
        full = schedule(EXAMPLE, rate, budget, PAPER)
        assert full is not None
        assert full.cost <= plan.cost * (1 + 1e-9)


def test_no_plan_where_even_one_request_takes_too_long() -> None:
    assert schedule(EXAMPLE, 10, 0.05) is None


def test_dummies_make_slow_arrivals_feasible() -> None:
    slow = 1.0  # a batch of two takes two seconds to come
    assert schedule(EXAMPLE, slow, 1.0, Rules(dummy=False)) is None
    plan = schedule(EXAMPLE, slow, 1.0)
    assert plan is not None
    assert plan.dummy > 0
