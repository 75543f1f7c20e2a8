from __future__ import annotations

import pytest

from tenantdl.errors import UserError
from tenantdl.plan.profile import Configuration, monotone, ordered, tie_groups, useful


def test_figures_of_a_configuration() -> None:
    entry = Configuration(8, 0.25, "slot", 2.0)
    assert entry.throughput == 32
    assert entry.ratio == 16


@pytest.mark.parametrize("figures", [(0, 1.0), (1, 0.0), (1, float("nan")), (1, float("inf"))])
def test_figures_must_be_positive(figures: tuple[int, float]) -> None:
    with pytest.raises(UserError, match="positive"):
        Configuration(*figures)


def test_tables_are_ordered_by_ratio_and_ties_are_found() -> None:
    slow, fast, tie = Configuration(2, 0.1), Configuration(32, 0.8), Configuration(4, 0.1)
    other = Configuration(8, 0.2)
    assert ordered([slow, tie, fast, other]) == (fast, other, tie, slow)
    assert tie_groups(ordered([slow, tie, fast, other])) == [(0, 3), (3, 4)]


def test_beaten_entries_are_left_out() -> None:
    good, beaten = Configuration(4, 0.1), Configuration(8, 0.3)
    assert useful([good, beaten]) == (good,)
    assert set(useful([good, Configuration(8, 0.15)])) == {good, Configuration(8, 0.15)}
    dearer = Configuration(8, 0.3, "other", 2.0)
    assert set(useful([good, dearer])) == {good, dearer}


def test_noise_does_not_make_larger_batches_faster() -> None:
    assert monotone([1.0, 0.9, 2.0]) == [1.0, 1.0, 2.0]
