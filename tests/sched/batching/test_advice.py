"""How many slots a load wants."""

from __future__ import annotations

import pytest

from tenantdl.errors import InvariantError
from tenantdl.sched.batching.advice import advice


@pytest.mark.parametrize(
    ("slots", "bad", "idle", "wanted"),
    [
        (8, 0.0, 0.0, 0),
        (8, 0.2, 0.0, 2),
        (8, 0.02, 0.5, 1),
        (8, 0.01, 0.3, -2),
        (8, 0.0, 1.0, -7),
        (8, 1.0, 0.0, 64),
    ],
)
def test_bad_requests_add_slots_and_idle_time_releases_them(
    slots: int, bad: float, idle: float, wanted: int
) -> None:
    assert advice(slots, bad, idle) == wanted


def test_only_shares_are_taken() -> None:
    with pytest.raises(InvariantError):
        advice(8, 1.1, 0.0)
