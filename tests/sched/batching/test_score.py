"""The closed form of the score against sampling, and as lines."""

from __future__ import annotations

import random
from math import exp

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenantdl.sched.batching.distribution import from_samples
from tenantdl.sched.batching.score import ScoreTable

DEADLINE = 1000


@pytest.mark.parametrize("left", [50, 90, 105, 130, 220, 260, 400, 900])
def test_closed_form_is_what_sampling_gives(left: int) -> None:
    draw = random.Random(left)
    times = sorted(
        round(draw.choice([draw.gauss(100, 12), draw.gauss(240, 20)])) for _ in range(2000)
    )
    found = from_samples(times)
    table = ScoreTable(found, delay=80.0, weight=1.0)
    later = 0
    runs = 200_000
    for _ in range(runs):
        time = found.quantile(1.0 - draw.random())
        if time <= left:
            later += time + draw.expovariate(1 / 80.0) > left
    assert table.score(DEADLINE, DEADLINE - left) == pytest.approx(later / runs, abs=0.006)


def test_an_atom_loses_exponentially_until_its_last_moment() -> None:
    table = ScoreTable(from_samples([100] * 5), delay=50.0, weight=2.0)
    assert table.score(DEADLINE, 900) == pytest.approx(2.0)
    assert table.score(DEADLINE, 850) == pytest.approx(2.0 * exp(-1))
    assert table.score(DEADLINE, 901) == 0.0
    assert table.shortest == 100


@given(
    st.lists(st.integers(1, 400), min_size=1, max_size=60).map(sorted),
    st.integers(0, 1200),
    st.integers(0, 300),
)
def test_between_two_edges_the_score_is_a_line(times: list[int], now: int, later: int) -> None:
    table = ScoreTable(from_samples(times), delay=70.0, weight=1.0)
    alpha, beta, until = table.line(DEADLINE, now, origin=500)
    assert until >= now
    at = min(now + later, until)
    value = alpha * exp((at - 500) / 70.0) + beta
    assert table.score(DEADLINE, at) == pytest.approx(value, rel=1e-6, abs=1e-9)
    if now < DEADLINE and until < 1 << 61:
        assert table.line(DEADLINE, until + 1, 500)[2] > until
