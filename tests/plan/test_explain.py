from __future__ import annotations

from plan.cases import EXAMPLE, EXAMPLE_BUDGET, EXAMPLE_RATE

from tenantdl.plan.dag import Application, Module
from tenantdl.plan.explain import why_infeasible, why_not_cheaper
from tenantdl.plan.harpagon import Rules, schedule


def test_better_configurations_are_accounted_for() -> None:
    plan = schedule(EXAMPLE, EXAMPLE_RATE, EXAMPLE_BUDGET, Rules(dummy=False))
    assert plan is not None
    large, middle = why_not_cheaper(EXAMPLE, plan, EXAMPLE_BUDGET)
    assert large.startswith("batch 32 on machine (40/s a core): 4 full; the 38/s left")
    assert "1642 ms" in large
    assert middle.startswith("batch 8 on machine (32/s a core): 1 full; the 6/s left")


def test_a_batch_that_never_fills_in_time_is_named() -> None:
    plan = schedule(EXAMPLE, 10.0, 0.5)
    assert plan is not None
    reasons = why_not_cheaper(EXAMPLE, plan, 0.5)
    assert "even with all requests a batch takes 800 ms + 3200 ms to fill" in reasons[0]


def test_the_binding_module_is_named_and_by_how_much() -> None:
    slow = Module("slow", 50.0, EXAMPLE)
    application = Application("a", (slow, Module("other", 50.0, EXAMPLE)), ((0, 1),), 0.1)
    reason = why_infeasible(application)
    assert reason.startswith("slow → other takes at least")
    assert "over the target of 100 ms by " in reason
    assert "slow needs" in reason
    least = float(reason.partition("at least ")[2].partition(" ms")[0])
    assert 200 < least < 300  # two batches of two: 100 ms each, and some collecting
