"""Who comes first: policy `tenantdl` on real lanes. Times in ms."""

from __future__ import annotations

import pytest

from tenantdl.ids import RequestId
from tenantdl.sched.messages import Launch
from tenantdl.sched.scheduler import Scheduler
from tests.sched.test_scheduler import arrive, finished, make, started


def busy(policy: str, *, ahead: bool = True) -> Scheduler:
    """One lane, in the first of the two blocks of a small request."""
    s = make(policy, arenas=16, big_queue=64, ahead=ahead)
    arrive(s, 1, "small", 0, 20)
    started(s, 1, 0)
    return s


@pytest.mark.parametrize(("policy", "first"), [("tenantdl", 2), ("edf", 3)])
def test_who_has_to_start_first_is_first(policy: str, first: int) -> None:
    s = busy(policy)
    # A big one takes 15 ms: it has to start at 45, the small one at 47.
    arrive(s, 2, "big", 0.1, 60)
    arrive(s, 3, "small", 0.2, 50)
    (launch,) = finished(s, 1, 1, 0, 1.5, next=1)
    assert isinstance(launch, Launch)
    assert launch.request == RequestId(first)


def test_who_is_due_first_is_first_where_lanes_are_not_told_ahead() -> None:
    s = busy("tenantdl", ahead=False)
    arrive(s, 2, "big", 0.1, 60)
    arrive(s, 3, "small", 0.2, 50)
    finished(s, 1, 1, 0, 1.5, next=None)
    started(s, 2, 1.5)
    _, launch = finished(s, 2, 1, 1, 3, next=None)  # a block at a time
    assert isinstance(launch, Launch)
    assert launch.request == RequestId(3)


@pytest.mark.parametrize(("late", "first"), [(6, 2), (7, 3)])
def test_where_more_is_late_than_can_be_borne_deadlines_count(late: int, first: int) -> None:
    s = busy("tenantdl")
    for number in range(10, 10 + late):
        arrive(s, number, "big", 0.05, 10)
    arrive(s, 2, "big", 0.1, 60)
    arrive(s, 3, "small", 0.2, 50)
    (launch,) = finished(s, 1, 1, 0, 1.5, next=1)
    assert isinstance(launch, Launch)
    assert launch.request == RequestId(first)
    assert s.book.late == late
    s.check()


def test_who_is_late_and_leaves_is_not_counted_any_more() -> None:
    s = busy("tenantdl")
    arrive(s, 2, "big", 0.1, 10, expires=12)
    assert s.book.late == 1
    finished(s, 1, 1, 0, 13, next=1)
    assert s.book.late == 0
    s.check()
