"""Online costs and the ends of blocks."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from tenantdl.sched.config import PlanSpec, VariantSpec
from tenantdl.sched.costs import PlanCosts, SegmentCosts
from tenantdl.units import MS, Ns

TARGET = Ns(3 * MS // 2)
COSTS = st.lists(st.integers(0, 5 * MS), min_size=1, max_size=60).map(tuple)


@given(COSTS)
def test_block_ends_cover_all_segments_once(costs: tuple[int, ...]) -> None:
    ends = SegmentCosts(costs, TARGET).block_ends(0, 1000)
    assert list(ends) == sorted(set(ends))
    assert ends[-1] == len(costs)


@given(st.lists(st.integers(MS // 5, MS), min_size=12, max_size=60).map(tuple))
def test_blocks_of_small_segments_are_one_to_two_and_a_half_ms(costs: tuple[int, ...]) -> None:
    segments = SegmentCosts(costs, TARGET)
    ends = (0, *segments.block_ends(0, 1000))
    lengths = [segments.between(a, b) for a, b in pairwise(ends)]
    assert all(MS <= length <= 2 * MS for length in lengths[:-1])
    assert MS * 3 // 4 <= lengths[-1] <= 2 * MS + 3 * MS // 4


def test_a_launch_has_at_most_so_many_blocks() -> None:
    segments = SegmentCosts((TARGET,) * 10, TARGET)
    assert segments.block_ends(0, 4) == (1, 2, 3, 4)
    assert segments.block_ends(7, 4) == (8, 9, 10)


@given(COSTS, st.integers(1, 4), st.data())
def test_estimates_converge_to_what_is_measured(
    costs: tuple[int, ...], factor: int, data: st.DataObject
) -> None:
    segments = SegmentCosts(costs, TARGET)
    true = [factor * max(cost, 1000) for cost in costs]
    begin = data.draw(st.integers(0, len(costs) - 1))
    end = data.draw(st.integers(begin + 1, len(costs)))
    for _ in range(60):
        segments.observe(begin, end, Ns(sum(true[begin:end])))
    measured = sum(true[begin:end])
    assert abs(segments.between(begin, end) - measured) <= 0.05 * measured + 10 * len(costs)
    others = segments.remaining(0) - segments.between(begin, end)
    assert others == sum(max(1, c) for c in (*costs[:begin], *costs[end:]))


def test_a_stalled_block_moves_the_estimate_only_so_far() -> None:
    segments = SegmentCosts((MS,), TARGET)
    for _ in range(20):
        segments.observe(0, 1, Ns(MS))
    segments.observe(0, 1, Ns(10_000 * MS))
    assert segments.remaining(0) < 2 * MS


def test_the_grid_follows_a_machine_that_slowed_down() -> None:
    segments = SegmentCosts((MS // 2,) * 12, TARGET)
    assert segments.block_ends(0, 100) == (3, 6, 9, 12)
    for _ in range(40):
        segments.observe(0, 12, Ns(12 * 3 * MS // 2))
    assert segments.block_ends(0, 100) == tuple(range(1, 13))


def test_what_was_said_stays_whatever_is_measured() -> None:
    spec = PlanSpec((VariantSpec((2, 4), ((MS, 2 * MS, MS), (MS, MS, MS))),))
    costs = PlanCosts(spec, TARGET, cores_max=4)
    for _ in range(20):
        costs.observe(0, 2, 0, 3, Ns(40 * MS), 0)
    assert costs.at(0, 2).remaining(0) > 8 * MS
    assert [costs.said(0, 3), costs.said(1, 2), costs.said(2, 2)] == [8 * MS, 4 * MS, 0]
