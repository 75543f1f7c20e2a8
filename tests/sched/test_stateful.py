"""Property test: whatever arrives, dies, fails and is cancelled, every request gets exactly one
answer and `check()` holds. The lanes here follow the rules of the real ones: one place for the
newest order, looked at between blocks, reports in order, orders superseded before they began."""

from __future__ import annotations

from dataclasses import dataclass, field

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tenantdl.errors import InvariantError
from tenantdl.ids import CoreId, LaneId, ModelId, RequestId, TenantId
from tenantdl.sched.batched import BatchedScheduler
from tenantdl.sched.config import (
    Batches,
    LaneSpec,
    ModelSpec,
    PlanSpec,
    SchedulerConfig,
    TenantSpec,
    VariantSpec,
    one_core_plan,
)
from tenantdl.sched.costs import PlanCosts
from tenantdl.sched.journal import entry_line, header_line, replay
from tenantdl.sched.messages import (
    BlockFailed,
    BlockFinished,
    Cancelled,
    Command,
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
    Reject,
    RequestArrived,
    TenantDeclared,
    TenantRemoved,
    Tick,
)
from tenantdl.sched.policies.names import POLICIES
from tenantdl.sched.request import TRANSITIONS, Request, State
from tenantdl.units import MS, Ns

TENANTS = {"a": (MS, 2 * MS, MS // 2), "b": (3 * MS,) * 7, "c": (MS // 10,) * 3}
BATCHES = (Batches((1, 2, 4), (0, 1, 2)),)
NAMES = [*sorted(POLICIES), "fixed-block(2)"]


def plan(costs: tuple[int, ...]) -> PlanSpec:
    """Two variants on one, two and four cores: the second is slower alone and suffers less."""
    return PlanSpec(
        tuple(
            VariantSpec(
                cores=(1, 2, 4),
                costs=tuple(tuple(c * factor // share for c in costs) for share in (10, 18, 25)),
                slowdowns=(1000, worst),
                pressure=pressure,
            )
            for factor, worst, pressure in ((10, 2500, 1000), (11, 1300, 500))
        )
    )


def plans(costs: tuple[int, ...]) -> tuple[PlanSpec, ...]:
    """For one, two and four requests."""
    return tuple(plan(tuple(cost * many for cost in costs)) for many in (1, 2, 4))


@dataclass
class LaneModel:
    alive: bool = False
    order: Launch | None = None  # the one place
    taken: int = 0  # the newest launch ever taken up
    running: Launch | None = None
    progress: int = 0

    def look(self, between: bool) -> Launch | None:
        """The order that would be taken up now."""
        order = self.order
        if order is None or order.launch <= self.taken or (between and not order.preempt):
            return None
        return order

    def take(self, order: Launch) -> None:
        self.taken, self.running, self.progress = order.launch, order, order.begin


@dataclass
class World:
    """Who has been answered, which segments of a request have run in a row, who is in a batch."""

    answered: dict[int, Command] = field(default_factory=dict)
    done: dict[int, int] = field(default_factory=dict)
    batch: dict[int, RequestId | None] = field(default_factory=dict)


class Serving(RuleBasedStateMachine):
    @initialize(
        policy=st.sampled_from(NAMES),
        lanes=st.integers(1, 5),
        blocks_max=st.integers(1, 4),
        refuse=st.booleans(),
        arenas=st.integers(1, 3),
        ahead=st.booleans(),
        share=st.integers(0, 500),
        batching=st.sampled_from(["", "", "deferred", "eager", "auto", "timeout(2)"]),
    )
    def begin(
        self,
        policy: str,
        lanes: int,
        blocks_max: int,
        refuse: bool,
        arenas: int,
        ahead: bool,
        share: int,
        batching: str,
    ) -> None:
        config = SchedulerConfig(
            policy=policy,
            lanes=tuple(LaneSpec(LaneId(i), (CoreId(i),)) for i in range(lanes)),
            models=tuple(
                ModelSpec(ModelId(m), plans(costs), batches=BATCHES) for m, costs in TENANTS.items()
            ),
            tenants=tuple(
                TenantSpec(
                    TenantId(t),
                    5,
                    arenas,
                    share=share,
                    model=ModelId(t),
                    qos=Ns(20 * MS),
                    batching="" if t == "b" else batching,
                )
                for t in TENANTS
            ),
            domains=((CoreId(0), CoreId(1)), (CoreId(2), CoreId(3), CoreId(4))),
            ahead=ahead,
            blocks_max=blocks_max,
            refuse_infeasible=refuse,
        )
        self.scheduler, self.batching = BatchedScheduler(config), batching
        self.lanes = {i: LaneModel() for i in range(lanes)}
        self.world = World()
        self.now = 0
        self.count = 0
        self.models = {name: ModelId(name) for name in TENANTS}  # the newest version of each
        self.versions = list(self.models.values())
        self.tenants = [TenantId(name) for name in TENANTS]
        self.asked: dict[int, tuple[TenantId, ModelId]] = {}
        self.journal = [header_line(config)]
        for lane in self.lanes:
            self.revive(lane)

    def send(self, event: Event) -> None:
        now = Ns(self.now)
        commands = self.scheduler.handle(event, now)
        self.journal.append(entry_line(now, event, commands))
        for command in commands:
            match command:
                case Launch():
                    lane = self.lanes[command.lane]
                    assert lane.alive
                    assert command.request not in self.world.answered
                    lane.order = command
                    self.nobody_else_holds(command)
                case Gathered():
                    assert command.members
                    assert self.world.answered.keys().isdisjoint(command.members)
                    for member in command.members:
                        assert self.world.batch.get(member) is None
                        self.world.batch[member] = command.batch.request
                case Dissolved():
                    for member, batch in self.world.batch.items():
                        if batch == command.request:
                            self.world.batch[member] = None
                case Complete() | Reject():
                    assert command.request not in self.world.answered
                    self.world.answered[command.request] = command
                    held = {command.request, self.world.batch.get(command.request)}
                    assert all(
                        lane.running is None or lane.running.request not in held
                        for lane in self.lanes.values()
                    )

    def nobody_else_holds(self, launch: Launch) -> None:
        """No other lane that is known to run has any of the launch's cores."""
        for number, lane in self.lanes.items():
            if lane.running is not None and number != launch.lane:
                assert set(lane.running.cores).isdisjoint(launch.cores)
        assert launch.lane in launch.cores  # lane i owns core i
        assert 0 < len(launch.cores) == len(set(launch.cores))
        assert 0 <= launch.variant < 2

    def revive(self, lane: int) -> None:
        self.lanes[lane] = LaneModel(alive=True)
        self.send(LaneReady(LaneId(lane)))

    @rule(
        tenant=st.integers(0, 5),
        model=st.sampled_from(sorted(TENANTS)),
        slack=st.integers(0, 40),
        patience=st.integers(0, 60),
        priority=st.integers(0, 1),
    )
    def arrive(self, tenant: int, model: str, slack: int, patience: int, priority: int) -> None:
        self.count += 1
        deadline, expires = Ns(self.now + slack * MS), Ns(self.now + patience * MS)
        request, name = RequestId(self.count), self.tenants[tenant % len(self.tenants)]
        version = self.models[model]
        self.asked[request] = name, version
        self.send(RequestArrived(request, name, version, 0, deadline, expires, priority))

    @rule(model=st.sampled_from(sorted(TENANTS)), arenas=st.sampled_from([None, 1, 2]))
    def replace(self, model: str, arenas: int | None) -> None:
        """A new version comes; requests for the old one go on."""
        version = self.models[model] = ModelId(f"{model}~{self.count}.{len(self.journal)}")
        self.versions.append(version)
        self.send(ModelAdded(ModelSpec(version, plans(TENANTS[model]), arenas, BATCHES)))

    @rule(which=st.integers(0, 5))
    def remove_an_old_version(self, which: int) -> None:
        old = [v for v in self.versions if v not in self.models.values()]
        if not old:
            return
        version = old[which % len(old)]
        used = {self.asked[request][1] for request in self.scheduler.live()}
        if version not in used:
            self.versions.remove(version)
            self.send(ModelRemoved(version))

    @rule(arenas=st.integers(1, 3), queue=st.integers(1, 5), model=st.sampled_from(sorted(TENANTS)))
    def another_tenant(self, arenas: int, queue: int, model: str) -> None:
        name = TenantId(f"t{len(self.tenants) % 5}")
        self.send(
            TenantDeclared(
                TenantSpec(name, queue, arenas, model=ModelId(model), batching=self.batching)
            )
        )
        if name not in self.tenants:
            self.tenants.append(name)

    @rule()
    def one_tenant_less(self) -> None:
        name = self.tenants[-1]
        used = {self.asked[request][0] for request in self.scheduler.live()}
        if len(self.tenants) > 1 and name not in used:
            self.tenants.pop()
            self.send(TenantRemoved(name))

    @rule(number=st.integers(0, 5))
    def cancel(self, number: int) -> None:
        self.send(Cancelled(RequestId(self.count - number)))

    @rule(dt=st.integers(0, 5 * MS))
    def wait(self, dt: int) -> None:
        self.now += dt
        wakeup = self.scheduler.next_wakeup()
        if wakeup is not None and wakeup <= self.now:
            self.send(Tick())

    @rule(
        lane=st.integers(0, 4),
        stretch=st.integers(1, 30),
        fails=st.integers(0, 15),
        yields=st.integers(0, 15),
    )
    def step(self, lane: int, stretch: int, fails: int, yields: int = 0) -> None:
        """A lane takes an order up, or runs one block; it may stop then (its successor takes over,
        and any order with it)."""
        model = self.lanes.get(lane)
        if model is None or not model.alive:
            return
        if model.running is None:
            if order := model.look(between=False):
                model.take(order)
                self.send(LaunchStarted(LaneId(lane), order.launch))
            return
        self.run_block(lane, model, stretch, fails == 1, yields == 1)

    def run_block(
        self, lane: int, model: LaneModel, stretch: int, fails: bool, yields: bool
    ) -> None:
        launch = model.running
        assert launch is not None
        begin = model.progress
        if begin and self.world.done.get(launch.request) != begin:
            fails = True  # what the real lane's guard does; must only follow a failure
            assert self.world.done.get(launch.request) == -1
        end = next(end for end in launch.ends if end > begin)
        model.progress = end
        self.world.done[launch.request] = -1 if fails else end
        through = fails or end == launch.end
        order = None if yields else model.look(between=not through)
        if order:
            model.take(order)
        elif through or yields:
            model.running = None
        follows = model.running.launch if model.running else None
        elapsed = Ns(stretch * MS // 5)
        self.now += elapsed
        head = (LaneId(lane), launch.launch, launch.request)
        self.send(
            BlockFailed(*head, follows)
            if fails
            else BlockFinished(*head, begin, end, elapsed, Ns(self.now), follows)
        )

    @precondition(lambda self: any(lane.alive for lane in self.lanes.values()))
    @rule(lane=st.integers(0, 4))
    def kill(self, lane: int) -> None:
        if lane in self.lanes and self.lanes[lane].alive:
            self.lanes[lane] = LaneModel()
            self.send(LaneLost(LaneId(lane)))

    @rule(lane=st.integers(0, 4))
    def restart(self, lane: int) -> None:
        if lane in self.lanes and not self.lanes[lane].alive:
            self.revive(lane)

    @invariant()
    def all_accounted_for(self) -> None:
        if hasattr(self, "scheduler"):
            self.scheduler.check()
            live = self.scheduler.live()
            assert set(live).isdisjoint(self.world.answered)
            assert set(live) | set(self.world.answered) == set(range(1, self.count + 1))

    def teardown(self) -> None:
        """Left alone, the lanes work everything off; and the journal tells the same story."""
        if not hasattr(self, "scheduler"):
            return
        for lane, model in self.lanes.items():
            if not model.alive:
                self.revive(lane)
        for _ in range(400):
            for lane in self.lanes:
                self.step(lane, 5, 0)
            self.wait(MS)
        assert self.scheduler.live() == {}
        assert len(self.world.answered) == self.count
        assert replay(self.journal).agreed == len(self.journal) - 1


Serving.TestCase.settings = settings(max_examples=250, stateful_step_count=40)
TestServing = Serving.TestCase


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("target", State)
def test_the_table_decides_about_every_transition(state: State, target: State) -> None:
    request = Request(
        RequestId(1),
        TenantId("a"),
        ModelId("a"),
        plan=0,
        seq=1,
        costs=PlanCosts(one_core_plan((1,)), Ns(1), 1),
        arrived=Ns(0),
        deadline=Ns(5),
        latest=Ns(4),
        expires=Ns(9),
        priority=0,
        state=state,
    )
    if target in TRANSITIONS[state]:
        request.move(target, Ns(3))
        assert request.state is target
    else:
        with pytest.raises(InvariantError, match="is not allowed"):
            request.move(target, Ns(3))
