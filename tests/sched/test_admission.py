"""Admission at arrival: what cannot be in time, and floods by tenant share. Times in ms."""

from __future__ import annotations

import pytest

from tenantdl.sched.messages import Reason, Reject
from tenantdl.sched.scheduler import Scheduler
from tests.sched.test_scheduler import arrive, finished, make, started


def refused(commands: list[object]) -> list[tuple[int, Reason]]:
    return [(int(c.request), c.reason) for c in commands if isinstance(c, Reject)]


def used_by_big() -> Scheduler:
    """One lane; so far only `big` (15 ms a request) has run: up to 20 ms."""
    s = make(refuse_infeasible=True, big_queue=16, small_queue=16)
    arrive(s, 1, "big", 0, 100)
    started(s, 1, 0)
    for block in range(10):
        last = block == 9
        finished(s, 1, 1, block, 1.5 * (block + 1), next=None if last else 1)
    assert s.live() == {}
    return s


def test_who_makes_others_late_is_refused_if_it_has_used_most() -> None:
    s = used_by_big()
    assert not refused(arrive(s, 2, "big", 20, 40))
    assert not refused(arrive(s, 3, "small", 20, 39))
    # 33 ms of work by 41 ms do not fit into 21 ms.
    assert refused(arrive(s, 4, "big", 20, 41)) == [(4, Reason.DEADLINE_INFEASIBLE)]
    # Nor do 21 ms by 40 ms; but this tenant has used nothing yet.
    assert not refused(arrive(s, 5, "small", 20, 30))


def test_what_fits_is_let_in_whoever_sent_it() -> None:
    s = used_by_big()
    for number, deadline in ((2, 40.0), (3, 60.0), (4, 80.0)):
        assert not refused(arrive(s, number, "big", 20, deadline))


def test_late_work_keeps_nobody_out() -> None:
    s = used_by_big()
    arrive(s, 2, "big", 20, 36)
    arrive(s, 3, "small", 20, 24)
    # Far behind: the big one cannot be in time any more, and is no obstacle.
    assert not refused(arrive(s, 4, "small", 60, 64))
    assert not refused(arrive(s, 5, "big", 60, 85))


@pytest.mark.parametrize("refuse", [True, False])
def test_admission_is_an_option(refuse: bool) -> None:
    s = make(refuse_infeasible=refuse)
    assert bool(refused(arrive(s, 1, "big", 0, 10))) is refuse
