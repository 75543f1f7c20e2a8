"""Every arrival process keeps the rate on its label, is seeded, and stays inside the duration."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tenantdl.errors import UserError
from tenantdl.load.arrivals import ARRIVALS, Shape, arrive
from tenantdl.units import SECOND


@pytest.fixture
def shape(tmp_path: Path) -> Shape:
    file = tmp_path / "trace.txt"
    file.write_text("\n".join(str(100 + t) for t in (0, 0.1, 0.15, 2, 2, 7.5)))
    return Shape(burstiness=2.0, trace=str(file))


def times(kind: str, rate: float, duration: float, seed: int, shape: Shape) -> np.ndarray:
    return ARRIVALS[kind](rate, duration, np.random.default_rng(seed), shape)


@pytest.mark.parametrize("kind", sorted(ARRIVALS))
def test_the_mean_is_the_rate(kind: str, shape: Shape) -> None:
    rate, duration, runs = 20.0, 50.0, 40
    counts = [len(times(kind, rate, duration, seed, shape)) for seed in range(runs)]
    # Four standard errors of the burstiest process: a label 5 % off is found.
    bound = 4 * 2.0 / (rate * duration * runs) ** 0.5
    assert bound < 0.05
    assert np.mean(counts) == pytest.approx(rate * duration, rel=bound)


@pytest.mark.parametrize("kind", sorted(ARRIVALS))
def test_times_ascend_within_the_duration_and_repeat_with_the_seed(kind: str, shape: Shape) -> None:
    first = times(kind, 30, 5, 7, shape)
    assert first.dtype == np.int64
    assert np.all(np.diff(first) >= 0)
    assert first[0] >= 0 and first[-1] < 5 * SECOND
    assert np.array_equal(first, times(kind, 30, 5, 7, shape))


@pytest.mark.parametrize(("kind", "low", "high"), [("poisson", 0.9, 1.1), ("gamma", 1.8, 2.2)])
def test_gaps_vary_as_said(kind: str, low: float, high: float, shape: Shape) -> None:
    gaps = np.diff(times(kind, 100, 300, 3, shape))
    assert low < gaps.std() / gaps.mean() < high


def test_bursts_do_not_all_begin_at_the_start(shape: Shape) -> None:
    """A renewal process begun at time 0 has too many arrivals early on."""
    early = [len(times("gamma", 10, 1.0, seed, shape)) for seed in range(400)]
    assert np.mean(early) == pytest.approx(10, abs=1.2)


def test_constant_gaps_are_equal(shape: Shape) -> None:
    gaps = np.diff(times("constant", 8, 4, 1, shape))
    assert np.all(np.abs(gaps - SECOND / 8) <= 1)


@pytest.mark.parametrize("text", ["1\n", "3\n2\n", "a\nb\n", "5\n5\n"])
def test_a_bad_trace_is_a_user_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "t").write_text(text)
    with pytest.raises(UserError, match="t: "):
        times("trace", 1, 1, 1, Shape(trace=str(tmp_path / "t")))


def test_absurd_loads_are_refused(shape: Shape) -> None:
    with pytest.raises(UserError, match="too many"):
        times("poisson", 1e9, 1e6, 1, shape)


def test_a_pace_moves_arrivals_and_keeps_the_rate() -> None:
    shape = Shape(pace=(1.0, 0.0, 3.0))
    times = arrive("poisson", 100.0, 30.0, np.random.default_rng(1), shape) / SECOND
    first, second, third = (np.sum((times >= a) & (times < a + 10)) for a in (0, 10, 20))
    assert second == 0
    assert first + third == len(times) == pytest.approx(3000, rel=0.06)
    assert third / first == pytest.approx(3, rel=0.1)
    assert np.all(np.diff(times) >= 0)
