"""What the batched scheduler keeps of models, requests and batches; see `batched`."""

from __future__ import annotations

from dataclasses import dataclass, field

from tenantdl.ids import RequestId
from tenantdl.sched.batching.latency import padded
from tenantdl.sched.batching.messages import Batch, Request
from tenantdl.sched.batching.times import Times
from tenantdl.sched.book import Book
from tenantdl.sched.config import BatchSpec
from tenantdl.sched.costs import PlanCosts
from tenantdl.sched.messages import Reason, RequestArrived
from tenantdl.units import Ns


@dataclass(slots=True)
class Family:
    """What may run together, and how it went: `queues` by priority; requests `served` in `batches`,
    and `passed_on` to be run alone because they are late."""

    spec: BatchSpec
    costs: tuple[PlanCosts, ...]
    times: Times
    slowdown: float = 1.0
    queues: dict[int, int] = field(default_factory=dict)
    batches: int = 0
    served: int = 0
    passed_on: int = 0

    def expected(self) -> tuple[Ns, ...]:
        """What batches of 1, 2, … take on one core, undisturbed."""
        return _expected(self.spec, self.costs)


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


def new_family(spec: BatchSpec, book: Book) -> Family:
    """With the costs that the scheduler knows."""
    costs = tuple(book.plan_costs(spec.model, plan) for plan in spec.plans)
    return Family(spec, costs, Times(_expected(spec, costs)))


def _expected(spec: BatchSpec, costs: tuple[PlanCosts, ...]) -> tuple[Ns, ...]:
    pairs = zip(spec.sizes, costs, strict=True)
    return padded({size: cost.at(0, 1).remaining(0) for size, cost in pairs})
