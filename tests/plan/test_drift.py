"""Replanning: by a fifth, not by noise, and not again and again."""

from __future__ import annotations

import numpy as np
import pytest

from tenantdl.plan.drift import HOLD, Drift


def test_a_steady_poisson_rate_is_never_planned_anew() -> None:
    for seed in range(20):
        rng = np.random.default_rng(seed)
        drift = Drift({"a": 5.0, "b": 200.0})
        for _ in range(200):
            counts = {"a": int(rng.poisson(50)), "b": int(rng.poisson(2000))}
            assert drift.note(counts, 10) is None


@pytest.mark.parametrize("factor", [0.5, 1.4, 3.0])
def test_a_step_is_planned_for_soon_and_once(factor: float) -> None:
    rng = np.random.default_rng(1)
    drift = Drift({"a": 100.0, "b": 50.0})
    found = []
    for period in range(40):
        times = factor if period >= 10 else 1
        rates = drift.note({"a": int(rng.poisson(1000 * times)), "b": int(rng.poisson(500))}, 10)
        if rates:
            found.append((period, rates))
    assert 11 <= found[0][0] <= 14
    assert len(found) <= 2  # a second one, when the average has caught up
    assert found[-1][1]["a"] == pytest.approx(100 * factor, rel=0.15)
    assert found[-1][1]["b"] == pytest.approx(50, rel=0.15)


def test_a_tenth_more_is_within_the_plan() -> None:
    drift = Drift({"a": 1000.0})
    assert all(drift.note({"a": 11_000}, 10) is None for _ in range(50))


def test_flapping_load_is_not_chased() -> None:
    drift = Drift({"a": 100.0})
    plans = [drift.note({"a": 500 if period % 2 else 1500}, 10) for period in range(60)]
    assert sum(plan is not None for plan in plans) <= 60 / HOLD / 2


def test_silence_is_planned_for_as_almost_nothing() -> None:
    drift = Drift({"a": 10.0})
    found = [rates for _ in range(20) if (rates := drift.note({}, 10))]
    assert found[-1]["a"] == pytest.approx(0.2)
