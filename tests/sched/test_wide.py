"""Two cores, and who gets both: policy `tenantdl` on real lanes. Times in ms."""

from __future__ import annotations

from tenantdl.ids import CoreId, LaneId, ModelId, RequestId, TenantId
from tenantdl.sched.config import (
    LaneSpec,
    ModelSpec,
    PlanSpec,
    SchedulerConfig,
    TenantSpec,
    VariantSpec,
)
from tenantdl.sched.messages import LaneReady, Launch, RequestArrived
from tenantdl.sched.scheduler import Scheduler
from tenantdl.units import MS, Ns
from tests.sched.test_scheduler import ms

NAMES = ("a", "b", "c")


def make() -> Scheduler:
    """Three tenants; every model has ten segments of 2 ms on one core, 1.2 ms on two."""
    variant = VariantSpec((1, 2), ((2 * MS,) * 10, (12 * MS // 10,) * 10))
    config = SchedulerConfig(
        "tenantdl",
        tuple(LaneSpec(LaneId(i), (CoreId(i),)) for i in range(2)),
        tuple(ModelSpec(ModelId(name), (PlanSpec((variant,)),)) for name in NAMES),
        tuple(TenantSpec(TenantId(name), 8, 4) for name in NAMES),
    )
    scheduler = Scheduler(config)
    for lane in range(2):
        scheduler.handle(LaneReady(LaneId(lane)), Ns(0))
    return scheduler


def arrive(s: Scheduler, number: int, name: str, at: float, deadline: float) -> list[Launch]:
    event = RequestArrived(
        RequestId(number), TenantId(name), ModelId(name), 0, ms(deadline), ms(1000), 0
    )
    return [c for c in s.handle(event, ms(at)) if isinstance(c, Launch)]


def test_who_is_alone_gets_both_cores() -> None:
    (launch,) = arrive(make(), 1, "a", 0, 100)
    assert len(launch.cores) == 2


def test_in_company_hopeless_is_who_needs_more_than_its_target_takes() -> None:
    s = make()
    arrive(s, 1, "a", 0, 25)
    arrive(s, 2, "b", 0, 25)
    arrive(s, 3, "c", 0, 25)
    # 20 ms on one core do not go into 17, 12 ms on two would; with two others inside there is one.
    arrive(s, 4, "c", 8, 200)
    assert s.book.requests[RequestId(3)].late
    tight = make()
    for number, name in enumerate(NAMES):
        arrive(tight, number, name, 0, 18)  # all take two cores to be in time
    arrive(tight, 4, "c", 1, 200)
    assert not tight.book.requests[RequestId(2)].late
