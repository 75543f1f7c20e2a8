from __future__ import annotations

import numpy as np
import pytest

from tenantdl.plan.functions import catalogue, cpu_latency, read_profiles, sliced_latency

PROFILES = read_profiles()


def test_published_profiles_are_there() -> None:
    assert sorted(PROFILES) == ["bert", "gpt2", "vgg19", "videomae"]


def test_latency_of_cpu_functions() -> None:
    found = cpu_latency((2.0, 0.5, 0.1), np.array([0.5, 100.0]))
    assert found == pytest.approx([2 * np.exp(-1) + 0.1, 0.1])


def test_latency_of_slices() -> None:
    profile = PROFILES["bert"].gpu
    alone = np.array([0.010])
    mean, worst = sliced_latency(alone, np.array([6.0]), profile)
    # 24 slices of 2 ms: six of them run 12 ms a turn, so one turn, waiting for the 18 others.
    assert mean == pytest.approx([0.040])
    assert worst == pytest.approx([18 * 0.002 + 0.010])
    mean, worst = sliced_latency(alone, np.array([24.0]), profile)
    assert mean == worst == pytest.approx([0.010])
    _, worst = sliced_latency(alone, np.array([1.0]), profile)
    assert worst == pytest.approx([5 * 23 * 0.002 + 0.010])


def test_whole_seconds_cost_more_on_slices_and_include_memory() -> None:
    for profile in PROFILES.values():
        whole, printed = catalogue(profile), catalogue(profile, "printed")
        for one, other in zip(whole, printed, strict=True):
            assert (one.cost > other.cost).all()
            assert (one.latency_max == other.latency_max).all()


def test_batches_that_do_not_fit_need_more_slices() -> None:
    _, sliced = catalogue(PROFILES["videomae"])
    small = {int(b): int(sliced.size[sliced.batch == b].min()) for b in (1, 4, 5, 6, 12, 14, 15)}
    assert small == {1: 2, 4: 2, 5: 3, 6: 3, 12: 4, 14: 5, 15: 6}
