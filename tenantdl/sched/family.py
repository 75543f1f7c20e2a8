"""What the batched scheduler keeps of models, requests and batches; see `batched`."""

from __future__ import annotations

from dataclasses import dataclass, field

from tenantdl.ids import ModelId, RequestId, TenantId
from tenantdl.sched.batching.distribution import from_samples
from tenantdl.sched.batching.latency import padded
from tenantdl.sched.batching.learn import Window
from tenantdl.sched.batching.messages import Batch, Request
from tenantdl.sched.batching.times import POINTS, PointTimes, Times
from tenantdl.sched.book import Book
from tenantdl.sched.costs import PlanCosts
from tenantdl.sched.messages import Reason, RequestArrived
from tenantdl.units import Ns


@dataclass(slots=True)
class Family:
    """Requests of `tenant` that may run together: plan `plans[i]` takes `sizes[i]` of them. `slo`:
    their latency target; `policy`: a name. How it went: `queues` by priority; requests `served` in
    `batches`, and `passed_on` to be run alone because they are late."""

    tenant: TenantId
    model: ModelId
    sizes: tuple[int, ...]
    plans: tuple[int, ...]
    slo: Ns
    policy: str
    costs: tuple[PlanCosts, ...]
    times: Times
    slowdown: float = 1.0
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
    """A batch under way. `slowdown`: what was foreseen for it."""

    batch: Batch
    family: Family
    members: tuple[RequestId, ...]
    slowdown: float


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
    times = Times(expected)
    if tenant.batching in POINTS:
        guess = Window(from_samples([expected[0]]))
        known = works.setdefault((event.tenant, event.model), guess)
        times = PointTimes(expected, known, POINTS[tenant.batching])
    slo, policy = tenant.qos, tenant.batching
    return Family(event.tenant, event.model, sizes, plans, slo, policy, costs, times)


def _expected(sizes: tuple[int, ...], costs: tuple[PlanCosts, ...]) -> tuple[Ns, ...]:
    pairs = zip(sizes, costs, strict=True)
    return padded({size: cost.at(0, 1).remaining(0) for size, cost in pairs})
