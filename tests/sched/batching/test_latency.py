"""l(b), targets and bounds; the analytic goldens of deferred batching."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenantdl.errors import InvariantError
from tenantdl.sched.batching.latency import (
    Latency,
    linear,
    padded,
    staggered_bound,
    target_batch,
    uncoordinated_bound,
)
from tenantdl.units import MS, Ns, from_ms

RESNET_50 = Latency(linear(from_ms(1.053), from_ms(5.072), 64))
INCEPTION_RESNET_V2 = Latency(linear(from_ms(5.090), from_ms(18.368), 64))


def test_bounds_on_eight_slots() -> None:
    assert _rounded(staggered_bound(RESNET_50, 8, 25 * MS)) == (16, 5839)
    assert _rounded(uncoordinated_bound(RESNET_50, 8, 25 * MS)) == (7, 4501)
    assert _rounded(staggered_bound(INCEPTION_RESNET_V2, 8, 70 * MS)) == (8, 1083)
    assert _rounded(uncoordinated_bound(INCEPTION_RESNET_V2, 8, 70 * MS)) == (3, 713)
    assert staggered_bound(RESNET_50, 8, 5 * MS) == (0, 0.0)


def _rounded(bound: tuple[int, float]) -> tuple[int, int]:
    return bound[0], round(bound[1])


@given(st.lists(st.integers(0, 100), min_size=1, max_size=20), st.integers(-5, 120))
def test_fit_is_the_largest_batch_within_a_budget(times: list[int], budget: int) -> None:
    latency = Latency(times)
    assert latency.times == sorted(latency.times)
    sizes = range(1, latency.size_max + 1)
    assert latency.fit(budget) == max((b for b in sizes if latency.times[b] <= budget), default=0)


def test_sizes_that_are_not_compiled_take_as_long_as_the_next_one() -> None:
    assert padded({4: Ns(9), 1: Ns(4), 2: Ns(5)}) == (4, 5, 9, 9)


def test_no_times_or_negative_ones_are_refused() -> None:
    for times in ([], [-1]):
        with pytest.raises(InvariantError):
            Latency(times)


def test_target_follows_the_rate() -> None:
    # Many slots busy: l(b)(1 + 1/n) fits. At 5839 r/s ResNet-50 in 16s keeps just 8 slots busy.
    assert target_batch(RESNET_50, 5839.0, 25 * MS, 0) == 16
    # Less than one slot busy: l(b) + b/rate fits. At 100 r/s a second request comes 10 ms later.
    assert target_batch(RESNET_50, 100.0, 25 * MS, 0) == 1
    assert target_batch(RESNET_50, 100.0, 28 * MS, 0) == 2  # 7.178 ms + 20 ms
    assert target_batch(RESNET_50, 5839.0, 25 * MS, MS) < 16
    assert target_batch(RESNET_50, 5839.0, 1 * MS, 0) == 1
