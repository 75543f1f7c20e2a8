"""The plan followed: caps and tails at the start, other ones when rates drift, nothing dropped."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

import msgspec
import pytest

from tenantdl.bench import qos
from tenantdl.daemon.catalogue import open_catalogue
from tenantdl.daemon.following import Following
from tenantdl.daemon.stages import with_stages
from tenantdl.daemon.statistics import Statistics
from tenantdl.ids import TenantId
from tenantdl.load.applications import PlanSection
from tenantdl.load.workload import Workload, parse_workload
from tenantdl.plan.tables import Entry, Profile, write_table
from tenantdl.plan.workload import WhatIf, plan_workload
from tenantdl.sched.journal import read
from tenantdl.sched.messages import TenantDeclared
from tests.exec.fake_lane_backend import fake_bundle

HERE = Path(__file__).parent
TEXT = """
    bundles = "BUNDLES"
    profiles = ["BUNDLES/table.json"]
    [machine]
    cores = [0]
    [plan]
    period_s = 0.02
    [[tenant]]
    name = "t"
    bundle = "fake:4:1000"
    qos_ms = 300
    rate = 2
    [[application]]
    name = "chain"
    slo_ms = 1000
    rate = 5
    [[application.module]]
    name = "a"
    bundle = "fake:4:1000"
    [[application.module]]
    name = "b"
    bundle = "fake:4:1000"
    after = ["a"]
    """
# A batch of eight takes little longer than a single request.
TABLE = [(1, 4.0), (2, 5.0), (4, 6.0), (8, 8.0), (16, 14.0)]


class Engine:
    """Keeps what it is told; `counts`: requests so far."""

    def __init__(self, workload: Workload) -> None:
        self.catalogue = open_catalogue(with_stages(workload))
        self.counts: dict[TenantId, int] = {}
        self.statistics = Statistics(lambda model: (model, ""), self.queues)
        self.told: list[TenantDeclared] = []

    def queues(self) -> Mapping[TenantId, int]:
        return self.counts

    def tell(self, event: TenantDeclared) -> None:
        self.told.append(event)

    def caps(self) -> dict[str, int]:
        return {event.spec.tenant: event.spec.batch_max for event in self.told}


@pytest.fixture
def workload(tmp_path: Path) -> Workload:
    fake_bundle(tmp_path, "quick", 4, 1000)
    entries = tuple(Entry(batch=b, cores=1, latency_ms=ms) for b, ms in TABLE)
    write_table(tmp_path / "table.json", [Profile(model="quick", entries=entries)], "", {})
    return parse_workload(TEXT.replace("BUNDLES", str(tmp_path)))


def test_caps_and_tails_follow_the_plan_and_the_rates(workload: Workload) -> None:
    engine = Engine(workload)
    section = workload.plan
    assert section is not None

    async def follow() -> tuple[dict[str, int], dict[str, int]]:
        following = Following(workload, section, engine)
        following.start()
        while following.plans < 1:
            await asyncio.sleep(0.005)
        before = engine.caps()
        stages = engine.catalogue.applications["chain"].stages  # type: ignore[index]
        assert 0 < stages["a"].tail < 1_000_000_000
        assert stages["b"].tail == 0
        while following.plans < 2:  # hundreds of times as many
            engine.counts[TenantId("t")] = engine.counts.get(TenantId("t"), 0) + 20
            engine.counts[TenantId("chain")] = engine.counts.get(TenantId("chain"), 0) + 1
            await asyncio.sleep(0.005)
        after = engine.caps()
        following.close()
        return before, after

    before, after = asyncio.run(follow())
    assert before.keys() == {"t", "chain.a", "chain.b"}
    assert before["t"] == 1  # two a second: nobody else comes in time
    assert after["t"] == 16
    specs = {event.spec.tenant: event.spec for event in engine.told}
    assert specs[TenantId("t")].requests_ks > 1_000_000  # policies that prepare for a load know
    assert specs[TenantId("t")].batching == "target-batch"  # batches wait until they are as planned
    assert specs[TenantId("t")].load > 1000  # thousandths of a core: the slots planned for it


def test_tenants_that_share_a_queue_by_plan_are_told_so(workload: Workload) -> None:
    first = msgspec.structs.replace(workload.tenant[0], rate=150.0)
    other = msgspec.structs.replace(first, name="u", qos_ms=310, batching="eager")
    both = msgspec.structs.replace(workload, tenant=(first, other))
    planned = plan_workload(both, WhatIf())
    together = [each for each in planned.planned if len(each.tenants) == 2]
    assert len(together) == 1, "batches of both cost less than each one's"
    engine = Engine(both)

    async def follow() -> None:
        following = Following(both, PlanSection(), engine)
        following.start()
        while following.plans < 1:
            await asyncio.sleep(0.005)
        following.close()

    asyncio.run(follow())
    specs = {event.spec.tenant: event.spec for event in engine.told}
    assert specs[TenantId("t")].queue == specs[TenantId("u")].queue == together[0].name
    assert specs[TenantId("chain.a")].queue == ""
    assert specs[TenantId("u")].batching == "eager"  # what the file says stays


def test_what_cannot_be_planned_is_served_without_a_plan(
    workload: Workload, caplog: pytest.LogCaptureFixture
) -> None:
    tight = tuple(msgspec.structs.replace(a, slo_ms=1) for a in workload.application)
    engine = Engine(workload)

    async def follow() -> int:
        following = Following(
            msgspec.structs.replace(workload, application=tight), PlanSection(), engine
        )
        following.start()
        while not caplog.records:
            await asyncio.sleep(0.005)
        following.close()
        return following.plans

    assert asyncio.run(follow()) == 0
    assert "takes at least" in caplog.text
    assert not engine.told


def test_a_daemon_plans_anew_and_drops_nothing(
    workload: Workload, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", f"{HERE.parent / 'exec'}:{HERE.parents[1]}")
    tenant = msgspec.structs.replace(workload.tenant[0], rate=100.0, qos_ms=5000, queue_max=1000)
    stepping = msgspec.structs.replace(
        workload,
        application=(),
        tenant=(tenant,),
        plan=PlanSection(period_s=0.5),
        load=msgspec.structs.replace(workload.load, pace=(1.0, 9.0), duration_s=5),
    )
    journal = tmp_path / "journal.jsonl"
    result = qos.run(stepping, journal=journal, backend="fake_lane_backend")
    _, entries = read(journal.read_bytes().splitlines())
    told = [entry.event.spec for entry in entries if isinstance(entry.event, TenantDeclared)]
    assert len(told) >= 2
    assert len({spec.requests_ks for spec in told}) == len(told)
    (row, _) = result.rows
    assert row["answered"] == row["requests"] > 300
