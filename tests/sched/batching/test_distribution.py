"""Distributions of run times, and of the longest of a batch, against sampling."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenantdl.errors import InvariantError
from tenantdl.sched.batching.distribution import BINS, from_samples, maximum, product

SHORT = sorted(random.Random(1).gauss(100, 10) for _ in range(4000))
LONG = sorted(random.Random(2).gauss(300, 60) for _ in range(4000))


@given(st.lists(st.integers(0, 50), min_size=1, max_size=300).map(sorted))
def test_samples_come_back(samples: list[int]) -> None:
    found = from_samples(samples)
    assert len(found.mass) <= BINS
    assert (found.lo[0], found.hi[-1]) == (samples[0], samples[-1])
    assert sum(found.mass) == pytest.approx(1)
    assert found.cdf(samples[-1]) == 1 and found.below(samples[0]) == 0
    for x in samples:
        assert found.below(x) <= found.cdf(x)
        share = sum(s <= x for s in samples) / len(samples)
        assert found.cdf(x) == pytest.approx(share, abs=2 / BINS + 1 / len(samples))
    for q in (0.1, 0.5, 0.99, 1.0):
        assert found.cdf(found.quantile(q) + 1e-6) >= q - 1e-9


def test_equal_samples_are_an_atom() -> None:
    atom = from_samples([7] * 100)
    assert (atom.lo, atom.hi, atom.mass) == ([7], [7], [1.0])
    longest = maximum(atom, [(1.0, atom)], 8)
    assert (longest.quantile(0.01), longest.quantile(1.0), longest.mean) == (7, 7, 7)
    assert longest.scaled(3, 2).mean == 17


@pytest.mark.parametrize("size", [2, 4, 16])
def test_the_longest_of_one_application_is_f_to_the_k(size: int) -> None:
    draw = random.Random(size)
    simulated = sorted(max(draw.choices(SHORT, k=size)) for _ in range(20_000))
    found = from_samples([round(x * 1000) for x in SHORT])
    longest = maximum(found, [(1.0, found)], size)
    for q in (0.05, 0.25, 0.5, 0.75, 0.95):
        assert longest.quantile(q) / 1000 == pytest.approx(simulated[int(q * 20_000)], rel=0.02)


def test_mixed_batches_and_unknown_mates() -> None:
    draw = random.Random(5)
    short, long = (from_samples([round(x * 1000) for x in xs]) for xs in (SHORT, LONG))
    mixed = sorted(max(draw.choice(SHORT), draw.choice(LONG)) for _ in range(20_000))
    pair = product([([(1.0, short)], 1), ([(1.0, long)], 1)])
    assert pair.quantile(0.5) / 1000 == pytest.approx(mixed[10_000], rel=0.02)
    mates = sorted(
        max(draw.choice(SHORT), *(draw.choice(draw.choice([SHORT] * 3 + [LONG])) for _ in range(3)))
        for _ in range(20_000)
    )
    longest = maximum(short, [(0.75, short), (0.25, long)], 4)
    for q in (0.25, 0.5, 0.9):
        assert longest.quantile(q) / 1000 == pytest.approx(mates[int(q * 20_000)], rel=0.03)


def test_no_samples_are_refused() -> None:
    with pytest.raises((InvariantError, ZeroDivisionError)):
        from_samples([])
