"""Two cores, and who gets both: policy `tenantdl` on real lanes. Times in ms."""

from __future__ import annotations

from tenantdl.ids import ModelId, RequestId
from tenantdl.sched.config import ModelSpec, PlanSpec, VariantSpec
from tenantdl.sched.messages import Launch
from tenantdl.sched.scheduler import Scheduler
from tenantdl.units import MS
from tests.sched.test_scheduler import arrive, make

# Ten segments of 2 ms on one core, 1.2 ms on two.
PLAN = PlanSpec((VariantSpec((1, 2), ((2 * MS,) * 10, (12 * MS // 10,) * 10)),))
MODELS = tuple(ModelSpec(ModelId(name), (PLAN,)) for name in ("a", "b", "c"))


def two_cores() -> Scheduler:
    return make("tenantdl", lanes=2, arenas=4, models=MODELS)


def test_who_is_alone_gets_both_cores() -> None:
    (launch,) = arrive(two_cores(), 1, "a", 0, 100)
    assert isinstance(launch, Launch)
    assert len(launch.cores) == 2


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
