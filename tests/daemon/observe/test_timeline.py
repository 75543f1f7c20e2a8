"""Blocks as the scheduler's events and commands tell them; the same from a journal; as a trace."""

from __future__ import annotations

import gc
import json

import msgspec

from tenantdl.daemon.observe.chrome import chrome_trace
from tenantdl.daemon.observe.known import Known
from tenantdl.daemon.observe.machine import MachineUse
from tenantdl.daemon.observe.timeline import Timeline
from tenantdl.ids import CoreId, LaneId, ModelId, RequestId, TenantId
from tenantdl.sched.config import (
    LaneSpec,
    ModelSpec,
    SchedulerConfig,
    TenantSpec,
    one_core_plan,
)
from tenantdl.sched.messages import (
    BlockFinished,
    Complete,
    Dissolved,
    Event,
    Gathered,
    LaneLost,
    LaneReady,
    Launch,
    LaunchStarted,
    ModelAdded,
    ModelRemoved,
    RequestArrived,
    TenantDeclared,
    TenantRemoved,
    Tick,
)
from tenantdl.sched.scheduler import Scheduler
from tenantdl.units import MS, Ns

LANE, MODEL, TENANT = LaneId(0), ModelId("m"), TenantId("t")


class World:
    """One scheduler with one lane, and a timeline that listens."""

    def __init__(self, blocks_max: int = 100) -> None:
        self.config = SchedulerConfig(
            policy="model-fcfs",
            lanes=(LaneSpec(LANE, (CoreId(3),)),),
            models=(ModelSpec(MODEL, (one_core_plan((MS,)),)),),
            tenants=(TenantSpec(TENANT, queue_max=9, arenas=2, qos=Ns(50 * MS)),),
            blocks_max=1,
        )
        self.scheduler = Scheduler(self.config)
        self.timeline = Timeline(blocks_max)
        self.launches: list[Launch] = []

    def tell(self, now: int, event: Event) -> None:
        commands = self.scheduler.handle(event, Ns(now))
        self.launches += [c for c in commands if isinstance(c, Launch)]
        self.timeline.note(Ns(now), event, commands, self.scheduler.counts().expected)

    def arrive(self, number: int, now: int) -> None:
        deadline = Ns(now + 50 * MS)
        self.tell(now, RequestArrived(RequestId(number), TENANT, MODEL, 0, deadline, deadline, 1))

    def run(self, now: int, elapsed: int) -> None:
        """The newest launch runs from `now` to its end."""
        launch = self.launches[-1]
        self.tell(now, LaunchStarted(LANE, launch.launch))
        end, span = Ns(now + elapsed), (launch.begin, launch.end)
        event = BlockFinished(LANE, launch.launch, launch.request, *span, Ns(elapsed), end, None)
        self.tell(end, event)


def test_blocks_have_their_request_cores_and_prediction() -> None:
    world = World()
    world.tell(0, LaneReady(LANE))
    world.arrive(1, now=10)
    assert world.timeline.pending() == {}  # a lane was told at once
    world.arrive(2, now=20)
    assert world.timeline.pending() == {(MODEL, TENANT): 1}
    world.run(now=100, elapsed=7 * MS)
    (block,) = world.timeline.blocks()
    assert (block.tenant, block.model, block.request, block.cores) == (TENANT, MODEL, 1, (3,))
    assert (block.start, block.elapsed, block.expected) == (100, 7 * MS, MS)
    assert (block.begin, block.end, block.variant) == (0, 1, 0)
    assert set(world.timeline.live) == {2}


def test_the_ring_is_bounded_and_numbers_go_on() -> None:
    world = World(blocks_max=3)
    world.tell(0, LaneReady(LANE))
    for number in range(1, 6):
        world.arrive(number, now=number * 100 * MS)
        world.run(now=number * 100 * MS + 1, elapsed=MS)
    assert [block.number for block in world.timeline.blocks()] == [2, 3, 4]
    assert [block.number for block in world.timeline.blocks(since=4)] == [4]
    assert world.timeline.blocks(since=5) == []
    assert [block.number for block in world.timeline.blocks(since=0)] == [2, 3, 4]


def test_the_ring_is_nothing_to_the_garbage_collector() -> None:
    world = World()
    world.tell(0, LaneReady(LANE))
    world.arrive(1, now=10)
    world.run(now=20, elapsed=MS)
    gc.collect()
    (kept,) = world.timeline._ring
    assert not gc.is_tracked(kept)


def test_orders_of_a_lost_lane_are_forgotten() -> None:
    world = World()
    world.tell(0, LaneReady(LANE))
    world.arrive(1, now=10)
    world.tell(20, LaneLost(LANE))
    world.tell(30, LaneReady(LANE))
    world.run(now=100, elapsed=MS)
    assert [block.start for block in world.timeline.blocks()] == [100]


def test_a_trace_has_a_row_for_every_core_and_starts_at_zero() -> None:
    world = World()
    world.tell(0, LaneReady(LANE))
    world.arrive(1, now=10)
    world.run(now=500_000, elapsed=2 * MS)
    events = json.loads(b"".join(chrome_trace(world.timeline.blocks())))["traceEvents"]
    (row,) = (e for e in events if e["name"] == "thread_name")
    assert (row["tid"], row["args"]) == (3, {"name": "core 3"})
    (block,) = (e for e in events if e["ph"] == "X")
    assert (block["name"], block["tid"], block["ts"], block["dur"]) == ("t #1", 3, 0.0, 2000.0)
    assert block["args"]["segments"] == "0:1"
    assert json.loads(b"".join(chrome_trace([])))["traceEvents"]


def test_models_and_tenants_come_and_go() -> None:
    config = World().config
    known = Known(config)
    other = msgspec.structs.replace(config.models[0], model=ModelId("m#2"))
    changed = msgspec.structs.replace(config.tenants[0], queue_max=3)
    known.note(ModelAdded(other))
    known.note(TenantDeclared(changed))
    assert list(known.models) == ["m", "m#2"] and known.tenants == {TENANT: changed}
    known.note(ModelRemoved(MODEL))
    known.note(TenantRemoved(TENANT))
    assert list(known.models) == ["m#2"] and known.tenants == {}
    assert known.cores() == [3]


def test_a_batch_runs_for_its_members() -> None:
    world = World()
    timeline = Timeline(keep_blocks=True)
    arrived = [
        RequestArrived(RequestId(n), TENANT, MODEL, 0, Ns(50 * MS), Ns(60 * MS), 1) for n in (1, 2)
    ]
    batch = msgspec.structs.replace(arrived[0], request=RequestId(1 << 31))
    for event in arrived:
        timeline.note(Ns(5), event, [])
    assert timeline.pending() == {(MODEL, TENANT): 2}
    world.tell(0, LaneReady(LANE))
    world.arrive(1 << 31, now=10)
    (launch,) = world.launches
    timeline.note(Ns(10), Tick(), [Gathered(batch, (RequestId(1), RequestId(2))), launch])
    assert timeline.pending() == {}
    done = BlockFinished(LANE, launch.launch, batch.request, 0, 1, Ns(2 * MS), Ns(3 * MS), None)
    answers = [Complete(RequestId(1)), Complete(RequestId(2)), Dissolved(batch.request)]
    block = timeline.note(Ns(3 * MS), done, answers)
    assert block is not None and (block.tenant, block.size) == (TENANT, 2)
    assert [(e.request, e.computed, e.blocks) for e in timeline.ended] == [
        (1, 2 * MS, 1),
        (2, 2 * MS, 1),
    ]
    assert (timeline.live, timeline.batches, timeline.batched) == ({}, 1, 2)
    use = MachineUse()
    for ended in timeline.ended:
        use.ran(ended, ("m", "1"))
    assert use.batches == {("m", "1", TENANT): {2: 1}}
