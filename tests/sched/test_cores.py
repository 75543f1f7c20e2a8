"""Core groups: masks, picking close together, and leaks that the invariants find."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenantdl.errors import InvariantError
from tenantdl.ids import CoreId, LaneId, ModelId, RequestId, TenantId
from tenantdl.sched.config import (
    LaneSpec,
    ModelSpec,
    PlanSpec,
    SchedulerConfig,
    TenantSpec,
    VariantSpec,
)
from tenantdl.sched.cores import CoreMap
from tenantdl.sched.messages import LaneReady, Launch, LaunchStarted, RequestArrived
from tenantdl.sched.scheduler import Scheduler
from tenantdl.units import MS, Ns

LANES = tuple(LaneSpec(LaneId(i), (CoreId(i),)) for i in range(16))
DOMAINS = tuple(tuple(CoreId(c) for c in range(d, d + 4)) for d in range(0, 16, 4))
MAP = CoreMap(LANES, DOMAINS)


@given(st.integers(0, 2**16 - 1), st.integers(1, 16), st.integers(0, 2**16 - 1))
def test_a_group_has_as_many_free_cores_as_were_asked_for(free: int, count: int, near: int) -> None:
    group = MAP.pick(free, count, near)
    if MAP.size(free) < count:
        assert group == 0
    else:
        assert group & ~free == 0
        assert MAP.size(group) == count
        assert MAP.size(group & near) == min(count, MAP.size(free & near))


def test_groups_stay_in_few_cache_domains() -> None:
    # The fullest domain that has enough; a whole free one is kept whole.
    assert MAP.cores(MAP.pick(0b1111_0111_0000_0011, 2)) == (0, 1)
    assert MAP.cores(MAP.pick(0b1111_0111_0000_0011, 3)) == (8, 9, 10)
    assert MAP.cores(MAP.pick(0b1111_0111_0000_0011, 4)) == (12, 13, 14, 15)
    # More than any domain has: the largest first.
    assert MAP.cores(MAP.pick(0b1111_0111_0000_0011, 6)) == (8, 9, 12, 13, 14, 15)


def test_lanes_of_several_cores_go_together() -> None:
    pairs = tuple(LaneSpec(LaneId(i), (CoreId(2 * i), CoreId(2 * i + 1))) for i in range(3))
    cores = CoreMap(pairs, ())
    assert cores.cores(cores.pick(0b110, 3)) == (2, 3, 4, 5)
    assert cores.pick(0b100, 3) == 0
    uneven = CoreMap((LANES[0], LaneSpec(LaneId(1), (CoreId(1), CoreId(2)))), ())
    assert uneven.cores(uneven.pick(0b11, 2)) == (0, 1, 2)
    assert uneven.size(0b10) == 2


def serving() -> Scheduler:
    plan = PlanSpec((VariantSpec((1, 2), ((8 * MS,) * 2, (4 * MS,) * 2)),))
    scheduler = Scheduler(
        SchedulerConfig(
            policy="edf",
            lanes=LANES[:4],
            models=(ModelSpec(ModelId("m"), (plan,)),),
            tenants=(TenantSpec(TenantId("t"), 4, 4),),
        )
    )
    for lane in range(4):
        scheduler.handle(LaneReady(LaneId(lane)), Ns(0))
    for number in (1, 2):
        arrived = RequestArrived(
            RequestId(number), TenantId("t"), ModelId("m"), 0, Ns(10 * MS), Ns(99 * MS), 0
        )
        (launch,) = scheduler.handle(arrived, Ns(0))
        assert isinstance(launch, Launch) and len(launch.cores) == 2
        scheduler.handle(LaunchStarted(launch.lane, launch.launch), Ns(0))
    scheduler.check()
    return scheduler


def test_an_injected_core_leak_is_caught() -> None:
    scheduler = serving()
    scheduler._book.lanes[LaneId(0)].held |= 0b100
    with pytest.raises(InvariantError, match="noted 111"):
        scheduler.check()
    scheduler = serving()
    scheduler._book.free |= 0b1
    with pytest.raises(InvariantError, match="are free, should be"):
        scheduler.check()
    scheduler = serving()
    lane = scheduler._book.lanes[LaneId(2)]
    lane.masks = dict.fromkeys(lane.masks, 0b110)
    with pytest.raises(InvariantError, match="holds other cores"):
        scheduler.check()


def test_cores_that_another_lane_holds_cannot_be_given_away() -> None:
    scheduler = serving()
    book = scheduler._book
    lane = book.lanes[LaneId(0)]
    assert lane.running is not None
    with pytest.raises(InvariantError, match="cores that are not its own"):
        book.place(lane, lane.running, 0b101)
