"""What the batched scheduler keeps of models, requests and batches; see `batched`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from tenantdl.ids import ModelId, RequestId, TenantId
from tenantdl.sched.batching.batcher import Batcher
from tenantdl.sched.batching.config import BatchingConfig, Network
from tenantdl.sched.batching.distribution import from_samples
from tenantdl.sched.batching.latency import padded
from tenantdl.sched.batching.learn import Patience, Window
from tenantdl.sched.batching.messages import Batch, Request
from tenantdl.sched.batching.order import ScoreOrder
from tenantdl.sched.batching.policies import PLAIN
from tenantdl.sched.batching.times import POINTS, SPREAD_MIN, PointTimes, Times
from tenantdl.sched.book import Book
from tenantdl.sched.config import Batches, SchedulerConfig
from tenantdl.sched.costs import PlanCosts
from tenantdl.sched.messages import BlockFinished, Launch, Reason, RequestArrived
from tenantdl.units import Ns


@dataclass(slots=True)
class Family:
    """Requests of `tenant` (and of those that share its queue) that may run together: plan
    `plans[i]` takes `sizes[i]` of them. `slo`: their tightest latency target; `policy`: a name;
    `varied`: requests of other shapes of the model take much longer or shorter. How it went:
    `patience`, how long requests wait until they are sent to a lane; `queues` by priority; requests
    `served` in `batches`, and `passed_on` to be run alone because they are late."""

    tenant: TenantId
    model: ModelId
    sizes: tuple[int, ...]
    plans: tuple[int, ...]
    slo: Ns
    policy: str
    costs: tuple[PlanCosts, ...]
    times: Times
    varied: bool = False
    slowdown: float = 1.0
    patience: Patience = field(default_factory=Patience)
    queues: dict[int, int] = field(default_factory=dict)
    batches: int = 0
    served: int = 0
    passed_on: int = 0

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.tenant}/{self.model}/{self.plans[0]}"

    def plan(self, size: int) -> int:
        """The number of the smallest plan that takes `size` requests."""
        return next(p for most, p in zip(self.sizes, self.plans, strict=True) if most >= size)

    def plan_costs(self, size: int) -> PlanCosts:
        """Those of that plan."""
        return next(c for most, c in zip(self.sizes, self.costs, strict=True) if most >= size)

    def lengths(self) -> tuple[Ns, ...]:
        """l(1), l(2), …; as expected, if by what was learned no request could be in time: then
        nothing would run any more that could be learned from."""
        learned = self.times.times()
        return learned if not self.slo or learned[0] <= self.slo else self.expected()

    def expected(self) -> tuple[Ns, ...]:
        """What batches of 1, 2, … take on one core, undisturbed."""
        return _expected(self.sizes, self.costs)


@dataclass(slots=True)
class Member:
    """A request that waits in queue `queue`, or is in `batch`."""

    arrived: RequestArrived
    family: Family
    queue: int
    waiting: Request
    batch: RequestId | None = None
    doomed: Reason | None = None


@dataclass(slots=True)
class Under:
    """A batch under way. `slowdown`: what was foreseen for it. Its blocks so far
    `took` ns, and should have taken `foreseen` ns on as many cores, undisturbed."""

    batch: Batch
    family: Family
    members: tuple[RequestId, ...]
    slowdown: float
    took: int = 0
    foreseen: int = 0

    def ran(self, launch: Launch | None, event: BlockFinished) -> None:
        """A block of the batch is done, of `launch` if that is what the lane runs."""
        if launch is None or launch.launch != event.launch:
            return
        plan = self.family.plan_costs(len(self.members))
        costs = plan.at(launch.variant, len(launch.cores))
        self.took += event.elapsed
        self.foreseen += costs.between(event.begin, event.end)

    def learn(self) -> bool:
        """The batch is through: whether l(b) has changed. What counts is what its blocks took, in
        proportion, and not how long it was kept from running by others."""
        times, size = self.family.times, len(self.members)
        changed = times.rebase(self.family.expected())
        if not self.foreseen:
            return changed
        elapsed = Ns(times.base[size - 1] * self.took // self.foreseen)
        return times.observe(size, elapsed, self.slowdown) or changed


def new_batcher(config: SchedulerConfig, families: Sequence[Family]) -> Batcher:
    """A batcher with no queues yet; those that are opened are of `families`, in their order."""
    # One more batch may be sent to a lane ahead of time, if that is how lanes are told.
    control = config.overheads.handover if config.ahead else Ns(0)
    network = Network(control=control, jitter=config.batch_slack)
    return Batcher(
        BatchingConfig((), len(config.lanes), network=network),
        lambda _: ScoreOrder(lambda n: families[n].times, lambda n: families[n].patience.value),
    )


Works = dict[tuple[TenantId, ModelId], Window]


def new_family(book: Book, event: RequestArrived, works: Works) -> Family | None:
    """What requests like `event` may be batched with; None: nothing. `works`: what is known of
    models in all, for policies that know no more."""
    tenant, model = book.tenants[event.tenant].spec, book.models[event.model].spec
    found = next((b for b in model.batches if b.plans[0] == event.plan), None)
    if found is None or not tenant.batching:
        return None
    sizes = tuple(size for size in found.sizes if size <= tenant.batch_max)
    plans = found.plans[: len(sizes)]
    costs = tuple(book.served.plan_costs(event.model, plan) for plan in plans)
    expected = _expected(sizes, costs)
    scored = tenant.batching.partition("(")[0] not in PLAIN
    varied = scored and _varied(model.batches, book, event)
    times = Times(expected, varied=varied, scored=scored)
    if tenant.batching in POINTS:
        guess = Window(from_samples([expected[0]]))
        known = works.setdefault((event.tenant, event.model), guess)
        times = PointTimes(expected, known, POINTS[tenant.batching])
    sharing = [t.spec.qos for t in book.tenants.values() if t.spec.queue == tenant.queue != ""]
    slo, policy = min([tenant.qos, *sharing]), tenant.batching
    return Family(event.tenant, event.model, sizes, plans, slo, policy, costs, times, varied)


def _varied(batches: Sequence[Batches], book: Book, event: RequestArrived) -> bool:
    """Whether requests of different shapes take different times."""
    times = [
        book.served.plan_costs(event.model, shape.plans[0]).at(0, 1).remaining(0)
        for shape in batches
    ]
    return max(times) > SPREAD_MIN * min(times)


def _expected(sizes: tuple[int, ...], costs: tuple[PlanCosts, ...]) -> tuple[Ns, ...]:
    pairs = zip(sizes, costs, strict=True)
    return padded({size: cost.at(0, 1).remaining(0) for size, cost in pairs})
