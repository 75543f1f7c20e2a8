"""bench scheduler: slots that keep time, in a time of our own; the row's fields."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tenantdl.bench import scheduler
from tenantdl.errors import UserError
from tenantdl.sched.batching.batcher import Batcher
from tenantdl.sched.batching.config import BatchingConfig, QueueSpec
from tenantdl.sched.batching.latency import linear
from tenantdl.sched.batching.pace import Pace
from tenantdl.units import MS, SECOND, US, Ns


def stepping(step: int) -> Callable[[], int]:
    """A clock on which every look takes `step` ns."""
    now = -step

    def clock() -> int:
        nonlocal now
        now += step
        return now

    return clock


def paced(rate: float, slots: int, step: int) -> Pace:
    spec = QueueSpec("m", linear(Ns(MS), Ns(4 * MS), 16), Ns(50 * MS))
    batcher = Batcher(BatchingConfig((spec,) * 2, slots, "deferred"))
    pace = Pace(batcher, [round(SECOND / rate)], [0], 50 * MS)
    pace.run(stepping(step), SECOND // 2, 2 * SECOND, False)
    return pace


def test_slots_serve_what_they_can() -> None:
    light, heavy = paced(500, 4, 20 * US), paced(4000, 2, 20 * US)
    assert light.dropped == 0
    assert light.good == pytest.approx(750, abs=20)
    # Two slots with batches of 16 in 20 ms: 1600 requests a second at most.
    assert heavy.dropped > heavy.requests / 3
    assert 1.5 * 1200 < heavy.good <= 1.5 * 1640


def test_a_slow_loop_shows_as_lag() -> None:
    assert max(paced(500, 4, 20 * US).lags) <= 20 * US
    assert max(paced(500, 4, 5 * MS).lags) > 2 * MS


def test_rows_have_the_contracts_fields(tmp_path: Path) -> None:
    out = tmp_path / "rows.json"
    protocol = scheduler.Protocol(warm_up_s=0.1, seconds=0.5)
    before = os.sched_getaffinity(0)
    scheduler.measure([2, 3], [4], protocol, rate=2000, json=out)
    os.sched_setaffinity(0, before)
    rows = json.loads(out.read_text())["results"]
    assert [(row["models"], row["slots"]) for row in rows] == [(2, 4), (3, 4)]
    for row in rows:
        assert row["requests_per_s"] > 0
        assert 0 < row["decision_us_p50"] <= row["decision_us_p99"]
        assert row["request_us"] > 0


def test_no_rate_can_be_kept_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler, "_lag", lambda pace: float("inf"))
    monkeypatch.setattr(scheduler, "_run", lambda *args, **more: None)
    with pytest.raises(UserError, match="keeps up with no rate"):
        scheduler.measure([1], [1])
