"""Plans in virtual time: the bound d + b/w, chance, and the margin that chance takes."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from plan.cases import EXAMPLE, EXAMPLE_BUDGET, EXAMPLE_RATE, example

from tenantdl.plan.dag import Application, ApplicationPlan, Module
from tenantdl.plan.harpagon import Rules, schedule
from tenantdl.plan.margin import hold, simulated
from tenantdl.plan.module import Tier, plan_of
from tenantdl.plan.search import search
from tenantdl.plan.simulate import constant, dispatch, poisson, promise, run_application

B2, B8, B32 = EXAMPLE
COUNT = 4000


def _latencies(plan, arrivals):  # type: ignore[no-untyped-def]
    done, _ = dispatch(plan, arrivals, EXAMPLE_BUDGET)
    return done - arrivals


def test_one_batch_at_a_time_by_hand() -> None:
    plan = plan_of(20, [Tier(B2, 1)])
    done, runs = dispatch(plan, np.array([0.0, 0.05, 0.06, 0.07]), 1.0)
    assert done == pytest.approx([0.15, 0.15, 0.25, 0.25])
    assert [run.size for run in runs] == [2, 2]
    assert [run.begin for run in runs] == pytest.approx([0.05, 0.15])


def test_a_batch_goes_off_in_time_without_being_full() -> None:
    plan = plan_of(20, [Tier(B2, 1)])
    done, runs = dispatch(plan, np.array([0.0, 5.0]), 0.4)
    assert done == pytest.approx([0.4, 5.4])
    assert [run.size for run in runs] == [1, 1]


@pytest.mark.parametrize("dummy", [False, True])
def test_equal_gaps_keep_the_bound_of_the_example(dummy: bool) -> None:
    plan = schedule(EXAMPLE, EXAMPLE_RATE, EXAMPLE_BUDGET, Rules(dummy=dummy))
    assert plan is not None
    arrivals = constant(EXAMPLE_RATE, COUNT, np.random.default_rng(0))
    found = promise(_latencies(plan, arrivals), EXAMPLE_BUDGET)
    assert found.within == 1.0
    # Tiers take turns, so a turn comes a little late where several of them are never idle.
    assert found.max_s <= plan.latency_s * (1 + 1e-9 if len(plan.tiers) == 1 else 1.03)


def test_tiers_get_their_shares() -> None:
    plan = schedule(EXAMPLE, EXAMPLE_RATE, EXAMPLE_BUDGET, Rules(dummy=False))
    assert plan is not None
    _, runs = dispatch(plan, constant(EXAMPLE_RATE, COUNT, np.random.default_rng(0)), 1.0)
    for number, tier in enumerate(plan.tiers):
        served = sum(run.size for run in runs if run.tier == number)
        assert served / COUNT == pytest.approx(tier.rate / EXAMPLE_RATE, abs=0.02)
    by_machine: dict[tuple[int, int], list[tuple[float, float]]] = {}
    for run in runs:
        by_machine.setdefault((run.tier, run.machine), []).append((run.begin, run.end))
    for spans in by_machine.values():
        assert all(end <= begin + 1e-9 for (_, end), (begin, _) in itertools.pairwise(spans))


def test_chance_breaks_the_bound_and_a_margin_restores_it() -> None:
    application = example()
    plan = search(application)
    assert plan is not None
    assert simulated(application, plan, arrivals=constant).within == 1.0
    assert simulated(application, plan, arrivals=poisson).within < 0.9
    held = hold(application, 0.99)
    assert held is not None
    assert held.margin > 0
    assert held.promise.within >= 0.99
    assert held.plan.cost > plan.cost


def test_an_application_takes_its_critical_path() -> None:
    modules = tuple(Module(f"m{n}", rate, EXAMPLE) for n, rate in enumerate((5.0, 15.0, 2.5)))
    application = Application("a", modules, ((0, 1), (0, 2)), 3.0)
    plans = tuple(plan_of(module.rate, [Tier(B2, 1)]) for module in modules)
    plan = ApplicationPlan(plans, "test")
    arrivals = constant(5.0, 200, np.random.default_rng(1))
    found = run_application(application, plan, arrivals, seed=1)
    assert len(found) == 200
    assert (found >= 2 * 0.1 - 1e-9).all()  # two batches one after the other, at least
    assert run_application(application, plan, arrivals, seed=1) == pytest.approx(found)


def test_arrivals_keep_their_rate() -> None:
    rng = np.random.default_rng(3)
    assert COUNT / poisson(10.0, COUNT, rng)[-1] == pytest.approx(10, rel=0.05)
    assert np.diff(constant(10.0, 5, rng)) == pytest.approx([0.1] * 4)
