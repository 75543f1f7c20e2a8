"""Two cores, and who gets both: policy `tenantdl` on real lanes. Times in ms."""

from __future__ import annotations

import pytest

from tenantdl.ids import ModelId, RequestId
from tenantdl.sched.config import ModelSpec, PlanSpec, VariantSpec
from tenantdl.sched.messages import Cancelled, Launch
from tenantdl.sched.scheduler import Scheduler
from tenantdl.units import MS
from tests.sched.test_scheduler import arrive, finished, make, ms, started

# Ten segments of 2 ms on one core, 1.2 ms on two.
PLAN = PlanSpec((VariantSpec((1, 2), ((2 * MS,) * 10, (12 * MS // 10,) * 10)),))
MODELS = tuple(ModelSpec(ModelId(name), (PLAN,)) for name in ("a", "b", "c"))


def two_cores() -> Scheduler:
    return make("tenantdl", lanes=2, arenas=4, models=MODELS)


def test_who_is_alone_gets_both_cores() -> None:
    (launch,) = arrive(two_cores(), 1, "a", 0, 100)
    assert isinstance(launch, Launch)
    assert len(launch.cores) == 2


@pytest.mark.parametrize(("waits", "cores"), [(None, 2), ("a", 1), ("b", 1)])
def test_who_is_not_alone_any_more_goes_on_with_its_part(waits: str | None, cores: int) -> None:
    s = two_cores()
    (first,) = arrive(s, 1, "a", 0, 100)
    assert isinstance(first, Launch)
    started(s, first.launch, 0)
    if waits:
        assert arrive(s, 2, waits, 0.1, 100) == []  # it would have a lane at the end of this launch
    launches, at = [], 0.1
    for block, end in enumerate(first.ends):
        at += 1.2
        launches += finished(
            s, first.launch, 1, block, at, first.launch if end < first.end else None
        )
    assert [len(launch.cores) for launch in launches if launch.request == 1][:1] == [cores]


@pytest.mark.parametrize("other", ["a", "b"])
def test_requests_that_wait_share_cores_out_whosever_they_are(other: str) -> None:
    s = two_cores()
    (first,) = arrive(s, 1, "a", 0, 100)
    assert isinstance(first, Launch)
    started(s, first.launch, 0)
    arrive(s, 2, "a", 0.1, 100)
    arrive(s, 3, other, 0.1, 100)
    # At the next end of a block there are two cores for the two that wait.
    (second, *_) = s.handle(Cancelled(RequestId(1)), ms(0.1))
    assert isinstance(second, Launch)
    assert (second.request, len(second.cores)) == (2, 1)


def test_in_company_hopeless_is_who_needs_more_than_its_target_takes() -> None:
    s = two_cores()
    arrive(s, 1, "a", 0, 25)
    arrive(s, 2, "b", 0, 25)
    arrive(s, 3, "c", 0, 25)
    # 20 ms on one core do not go into 17, 12 ms on two would; with two others inside there is one.
    arrive(s, 4, "c", 8, 200)
    assert s.book.requests[RequestId(3)].late
    tight = two_cores()
    for number, name in enumerate("abc"):
        arrive(tight, number, name, 0, 18)  # all take two cores to be in time
    arrive(tight, 4, "c", 1, 200)
    assert not tight.book.requests[RequestId(2)].late
