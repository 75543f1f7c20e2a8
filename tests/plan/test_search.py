"""Our search and the paper's splitting, against an exact solver and against each other."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from plan.cases import EXAMPLE, example, random_application

from tenantdl.errors import UserError
from tenantdl.plan.dag import Application, ApplicationPlan, Module
from tenantdl.plan.exact import solve_exact
from tenantdl.plan.module import Tier, batch_aware_latency
from tenantdl.plan.planners import BASELINES, OURS, PLANNERS

GAP_MAX = 0.05


def _checked(application: Application, name: str) -> float | None:
    plan = PLANNERS[name](application)
    if plan is None:
        return None
    assert application.fits(plan.latencies)
    for own, module in zip(plan.modules, application.modules, strict=True):
        assert own.latency_s >= batch_aware_latency(own.tiers) * (1 - 1e-9)
        assert sum(tier.rate for tier in own.tiers) >= module.rate * (1 - 1e-9)
        assert {tier.configuration for tier in own.tiers} <= set(module.table)
    return plan.cost


def _dearest(application: Application) -> ApplicationPlan:
    """A plan that leaves the solver something to find."""
    plans = [plan for planner in PLANNERS.values() if (plan := planner(application)) is not None]
    return max(plans, key=lambda plan: plan.cost)


@pytest.mark.parametrize("seed", range(4))
def test_the_optimum_is_proven_to_be_one(seed: int, capfd: pytest.CaptureFixture[str]) -> None:
    application = random_application(seed, 1 + seed % 3)
    exact = solve_exact(application, _dearest(application))
    assert exact is not None
    again = solve_exact(application, exact.plan)
    assert again is not None and again.plan is exact.plan
    assert again.bound == pytest.approx(exact.plan.cost, rel=1e-5)
    assert capfd.readouterr().out == ""  # of the solver's own noise


@pytest.mark.parametrize("seed", range(12))
def test_ours_is_near_the_proven_optimum_and_never_below(seed: int) -> None:
    application = random_application(seed, 1 + seed % 3)
    cost = _checked(application, OURS)
    assert cost is not None
    exact = solve_exact(application, _dearest(application))
    assert exact is not None
    assert exact.bound * (1 - 1e-5) <= cost <= exact.plan.cost * (1 + GAP_MAX)
    assert exact.plan.cost >= exact.bound * (1 - 1e-5)
    assert application.latency(exact.plan.latencies) <= application.slo_s * (1 + 1e-5)


@pytest.mark.parametrize("seed", range(40))
def test_no_other_planner_is_cheaper(seed: int) -> None:
    application = random_application(seed)
    ours = _checked(application, OURS)
    for name in PLANNERS:
        other = _checked(application, name)
        assert other is None or (ours is not None and ours <= other * (1 + 1e-9)), name


def test_the_example_is_solved_by_all_exactly() -> None:
    exact = solve_exact(example(), _dearest(example()))
    assert exact is not None
    assert exact.plan.cost == pytest.approx(5)
    assert exact.bound == pytest.approx(5)
    assert _checked(example(), OURS) == pytest.approx(5)


def test_the_exact_solver_agrees_with_trying_everything() -> None:
    """All machine counts, with fractions by hundredths: never cheaper than the solver's plan."""
    application = Application("a", (Module("m", 30.0, EXAMPLE),), (), 0.6)
    exact = solve_exact(application, _dearest(application))
    assert exact is not None
    steps = np.arange(0, 201) / 100
    best = np.inf
    for large, middle, small in itertools.product((0, 1), steps, steps):
        tiers = [
            Tier(entry, int(count), float(count % 1))
            for entry, count in zip(EXAMPLE[::-1], (large, middle, small), strict=True)
            if count
        ]
        cost = large + middle + small
        enough = sum(tier.rate for tier in tiers) >= 30
        if cost < best and enough and batch_aware_latency(tiers) <= 0.6:
            best = cost
    assert exact.plan.cost - 1e-6 <= best <= exact.plan.cost * 1.02


def test_more_modules_than_are_searched_at_once() -> None:
    modules = tuple(Module(f"m{n}", 50.0 + n, EXAMPLE) for n in range(6))
    chain = tuple((n, n + 1) for n in range(5))
    application = Application("a", modules, chain, 4.0)
    ours, published = _checked(application, OURS), _checked(application, "harpagon-paper")
    assert ours is not None and published is not None
    assert ours <= published * (1 + 1e-9)


def test_infeasible_targets_have_no_plan() -> None:
    application = Application("a", (Module("m", 30.0, EXAMPLE),), (), 0.09)
    assert all(planner(application) is None for planner in PLANNERS.values())
    nothing = ApplicationPlan((), "none")
    with pytest.raises(UserError, match="a: no plan"):
        solve_exact(application, nothing)


def test_baselines_keep_to_their_means() -> None:
    for seed in range(20):
        application = random_application(seed, 2)
        for name in BASELINES:
            plan = PLANNERS[name](application)
            if plan is None:
                continue
            tuples_max = 1 if name in ("clipper", "inferline") else 2
            assert all(len(own.tiers) <= tuples_max for own in plan.modules)
            assert all(own.dummy == 0 for own in plan.modules)
            if name == "nexus":
                kinds = {t.configuration.hardware for own in plan.modules for t in own.tiers}
                assert len(kinds) == 1
