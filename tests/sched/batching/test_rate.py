"""The rate meter."""

from __future__ import annotations

from tenantdl.sched.batching.rate import SAMPLE, SAMPLES, RateMeter
from tenantdl.units import MS


def test_rate_is_renewed_once_a_sample_and_forgets_after_the_window() -> None:
    meter = RateMeter()
    renewed = [meter.count(1, at * MS) for at in range(0, 101, 10)]
    assert renewed == [False] * 5 + [True] + [False] * 4 + [True]
    assert (meter.known, meter.rate) == (True, 100.0)
    assert meter.count(3, 200 * MS)  # two empty samples between
    assert meter.rate == 11 / 0.2
    meter.count(0, 200 * MS + SAMPLE * (SAMPLES + 1))
    assert meter.rate == 0.0
