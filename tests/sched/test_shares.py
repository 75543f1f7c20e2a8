"""Who is over its share, and what that does to the order."""

from __future__ import annotations

import pytest

from tenantdl.ids import CoreId, LaneId, ModelId, RequestId, TenantId
from tenantdl.sched.book import Book
from tenantdl.sched.config import (
    LaneSpec,
    ModelSpec,
    SchedulerConfig,
    TenantSpec,
    one_core_plan,
)
from tenantdl.sched.messages import BlockFinished, LaunchId, Tick
from tenantdl.sched.placing import urgency
from tenantdl.sched.policies.joint import over_share
from tenantdl.units import MS, SECOND, Ns
from tests.sched.test_scheduler import arrive, make, started

# Core time a second, in 1/1000 of one core: more than two cores in all.
LOADS = {"light": 20, "photos": 100, "heavy": 2900}


@pytest.mark.parametrize(
    ("got", "over"),
    [
        # As said, in the window of one to two seconds.
        ({"light": 0.04, "photos": 0.2, "heavy": 4.0}, set()),
        # The heavy one gets less than it asked for: the others are not over for that.
        ({"light": 0.04, "photos": 0.2, "heavy": 1.5}, set()),
        # Everybody sends five times what was said.
        ({"light": 0.2, "photos": 1.0, "heavy": 29.0}, set()),
        # One of them gets ten times what it said.
        ({"light": 0.4, "photos": 0.2, "heavy": 3.0}, {"light"}),
        ({"light": 0.0, "photos": 0.0, "heavy": 0.0}, set()),
    ],
)
def test_only_who_takes_far_more_than_it_said_is_over(
    got: dict[str, float], over: set[str]
) -> None:
    config = SchedulerConfig(
        policy="tenantdl",
        lanes=tuple(LaneSpec(LaneId(i), (CoreId(i),)) for i in range(2)),
        models=(ModelSpec(ModelId("m"), (one_core_plan((1000,)),)),),
        tenants=(
            *(TenantSpec(TenantId(name), 8, 2, load=load) for name, load in LOADS.items()),
            TenantSpec(TenantId("unstated"), 8, 2),
        ),
    )
    book = Book(config, urgency)
    for name, seconds in (got | {"unstated": 9.0}).items():
        # Who is slowed down ten times by the others has not had more for that.
        slower = 10 if name == "light" else 1
        said = round(seconds * SECOND)
        book.charge(book.tenants[TenantId(name)], slower * said, said, Ns(0))
    assert {name for name in book.tenants if over_share(book, name)} == over


def test_a_block_is_charged_as_it_was_and_as_it_was_said() -> None:
    s = make("tenantdl")
    arrive(s, 1, "big", 0, 900)
    started(s, 1, 0)
    event = BlockFinished(
        LaneId(0), LaunchId(1), RequestId(1), 0, 2, Ns(20 * MS), Ns(20 * MS), LaunchId(1)
    )
    s.handle(event, Ns(20 * MS))
    # Two segments of 1.5 ms.
    tenant = s.book.tenants[TenantId("big")]
    assert (tenant.used, tenant.got) == (20 * MS, 3 * MS)
    s.handle(Tick(), Ns(SECOND))
    s.book.charge(s.book.tenants[TenantId("small")], 0, 0, Ns(SECOND))
    assert (tenant.used, tenant.got) == (10 * MS, 3 * MS // 2)


def test_a_share_is_strict() -> None:
    tenants = (TenantSpec(TenantId("bounded"), 8, 2, share=250), TenantSpec(TenantId("b"), 8, 2))
    config = SchedulerConfig(
        policy="tenantdl",
        lanes=(LaneSpec(LaneId(0), (CoreId(0),)),),
        models=(ModelSpec(ModelId("m"), (one_core_plan((1000,)),)),),
        tenants=tenants,
    )
    book = Book(config, urgency)
    bounded, other = (book.tenants[TenantId(name)] for name in ("bounded", "b"))
    book.charge(bounded, 24, 0, Ns(0))
    book.charge(other, 75, 0, Ns(0))
    assert not over_share(book, TenantId("bounded"))
    book.charge(bounded, 2, 0, Ns(0))
    assert over_share(book, TenantId("bounded"))
    assert not over_share(book, TenantId("b"))
