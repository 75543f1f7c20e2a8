"""Who may send a body while there are many. Times in ms."""

from __future__ import annotations

import time

from tenantdl.daemon.door import Door
from tenantdl.daemon.tenants import open_tenant
from tenantdl.ids import ModelId, TenantId
from tenantdl.load.workload import TenantSection
from tenantdl.sched.scheduler import Scheduler
from tenantdl.units import MS
from tests.sched.test_scheduler import arrive, make

# 15 and 3 ms of work (test_scheduler), on one core.
BIG, SMALL = (TenantId("big"), ModelId("big")), (TenantId("small"), ModelId("small"))


def door(big: float, small: float, lanes: int = 1) -> Door:
    """Behind it an empty machine; targets of both tenants."""
    return behind(make(lanes=lanes), big, small)


def behind(scheduler: Scheduler, big: float, small: float) -> Door:
    targets = {BIG[0]: big, SMALL[0]: small}
    sections = {n: TenantSection(name=n, qos_ms=t, bundle="b") for n, t in targets.items()}
    return Door(scheduler.book, {n: open_tenant(section) for n, section in sections.items()})


def holding(count: int, due: float) -> Scheduler:
    """So many big requests are inside, all due by then."""
    scheduler = make(big_queue=512)
    now = time.monotonic_ns() / MS
    for number in range(count):
        arrive(scheduler, number, "big", now, now + due, now + 20_000)
    return scheduler


def test_a_few_come_in_unasked() -> None:
    narrow = door(1, 1)
    assert [narrow.enter(*BIG) for _ in range(3)] == [True] * 2 + [False]
    wide = door(1, 1, lanes=2)
    assert [wide.enter(*BIG) for _ in range(5)] == [True] * 4 + [False]


def test_of_many_those_who_fit() -> None:
    # 45 ms of work by 48 ms: 60 % of the target.
    full = door(80, 80)
    assert [full.enter(*BIG) for _ in range(4)] == [True] * 3 + [False]
    # 2 * 15 + 2 * 3 + 15 ms; and then nobody's body is on its way any more.
    mixed = door(80, 80)
    came = (BIG, BIG, SMALL, SMALL, BIG)
    assert [mixed.enter(*who) for who in came] == [True] * 4 + [False]
    for who in came[:4]:
        mixed.leave(*who)
    assert mixed.enter(*BIG)


def test_others_bodies_leave_a_tenant_its_portion() -> None:
    # Both have 40 ms of 80: half of that by the time that bodies are there.
    full = door(80, 80)
    assert [full.enter(*BIG) for _ in range(3)] == [True] * 3
    assert [full.enter(*SMALL) for _ in range(8)] == [True] * 6 + [False] * 2


def test_many_inside_close_it_too() -> None:
    scheduler = holding(20, 10_000)
    soon = behind(scheduler, 300, 10)
    # 300 ms of work that is due later does not stand in the way of who is in a hurry.
    assert soon.enter(*SMALL) and soon.enter(*BIG)
    tight = behind(scheduler, 11_000, 2)
    assert tight.enter(*BIG)
    assert not tight.enter(*SMALL)  # 3 ms in 2


def test_the_late_inside_keep_nobody_out() -> None:
    scheduler = holding(200, 2500)
    # 3 s of work by 2.8.
    full = behind(scheduler, 2800, 2800)
    assert not full.enter(*BIG)
    for request in scheduler.book.requests.values():
        request.late = True
    assert full.enter(*BIG)


def test_what_the_scheduler_does_not_know_comes_in() -> None:
    full = door(1, 1)
    for _ in range(8):
        assert full.enter(SMALL[0], ModelId("an application"))
    assert not full.enter(*BIG)
