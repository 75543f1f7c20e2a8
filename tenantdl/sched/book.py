"""What the scheduler knows: requests, tenants' queues, arenas, lanes, costs. No decisions here.

Every order is total (ranks end in the sequence number) and nothing iterates over a set, so that
the same events give the same commands.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from tenantdl.errors import InvariantError
from tenantdl.ids import LaneId, ModelId, RequestId, TenantId
from tenantdl.sched.config import SchedulerConfig, TenantSpec
from tenantdl.sched.estimate import SegmentCosts
from tenantdl.sched.messages import Launch
from tenantdl.sched.request import Request, State
from tenantdl.units import Ns

_NEVER = Ns(0)

Rank = tuple[int, ...]
RankFunction = Callable[[Request], Rank]


class RankedQueue:
    """Requests in the order of a rank that must not change while they are inside."""

    def __init__(self, rank: RankFunction) -> None:
        self._rank = rank
        self._items: list[tuple[Rank, Request]] = []

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[Request]:
        return (request for _, request in self._items)

    @property
    def head(self) -> Request | None:
        """The first request, None if empty."""
        return self._items[0][1] if self._items else None

    def push(self, request: Request) -> None:
        """Put `request` in its place."""
        insort(self._items, (self._rank(request), request), key=lambda item: item[0])

    def remove(self, request: Request) -> None:
        """Take `request` out; raises InvariantError if it is not inside."""
        if not self.discard(request):
            raise request.broken("not in the queue that should hold it")

    def discard(self, request: Request) -> bool:
        """Take `request` out if it is inside; whether it was."""
        index = bisect_left(self._items, self._rank(request), key=lambda item: item[0])
        inside = index < len(self._items) and self._items[index][1] is request
        if inside:
            del self._items[index]
        return inside


@dataclass(slots=True)
class Lane:
    """`running`: the launch that the lane is known to run; its present block began at `boundary`.
    `pending`: launches issued after it, oldest first. Each may have been superseded by the next."""

    id: LaneId
    ready: bool = False
    running: Launch | None = None
    boundary: Ns = _NEVER
    pending: list[Launch] = field(default_factory=list)


@dataclass(slots=True)
class Tenant:
    """A tenant's waiting requests and free arenas. `live`: requests of all states not answered."""

    spec: TenantSpec
    queue: RankedQueue
    arenas: list[int]
    live: int = 0


class Book:
    """All state of a scheduler."""

    def __init__(self, config: SchedulerConfig, rank: RankFunction) -> None:
        self.config = config
        self.rank = rank
        self.lanes = {spec.lane: Lane(spec.lane) for spec in config.lanes}
        self.tenants = {
            spec.tenant: Tenant(spec, RankedQueue(rank), list(range(spec.arenas)))
            for spec in config.tenants
        }
        self.requests: dict[RequestId, Request] = {}
        self.parked: dict[RequestId, Request] = {}
        self.expiry = RankedQueue(lambda request: (request.expires, request.seq))
        self._costs = {
            (model.model, plan): SegmentCosts(costs, config.block_target)
            for model in config.models
            for plan, costs in enumerate(model.plans)
        }

    def costs(self, request: Request) -> SegmentCosts:
        """The costs of the plan that `request` runs."""
        return self.plan_costs(request.model, request.plan)

    def plan_costs(self, model: ModelId, plan: int) -> SegmentCosts:
        """The costs of plan number `plan` of `model`."""
        try:
            return self._costs[model, plan]
        except KeyError:
            raise InvariantError(f"plan {plan} of model {model} was never declared") from None

    def running(self, lane: Lane) -> Request | None:
        """The request that `lane` is known to run."""
        return self.requests[lane.running.request] if lane.running else None

    def near_end(self, lane: Lane) -> bool:
        """Whether the running launch has begun its last block: time to say what comes next."""
        launch = lane.running
        if launch is None:
            return False
        return len(launch.ends) == 1 or self.requests[launch.request].progress >= launch.ends[-2]

    def has_arena(self, request: Request) -> bool:
        """Whether `request` holds an arena, could get one, or could take a late one's."""
        if request.arena is not None or self.tenants[request.tenant].arenas:
            return True
        return not request.late and self.evictable(request.tenant) is not None

    def evictable(self, tenant: TenantId) -> Request | None:
        """The late parked request of `tenant` that has least to lose."""
        late = [r for r in self.parked.values() if r.late and r.tenant == tenant]
        return min(late, key=lambda r: (r.progress, r.seq), default=None)

    def mark_late(self, now: Ns) -> None:
        """Find out which requests cannot meet their deadlines any more."""
        for tenant in self.tenants.values():
            queue = tenant.queue
            while (head := queue.head) and not head.late and self.eta(head, now) > head.deadline:
                queue.remove(head)
                head.late = True
                queue.push(head)
        for request in self.parked.values():
            request.late = request.late or self.eta(request, now) > request.deadline
        for lane in self.lanes.values():
            if running := self.running(lane):
                eta = self.eta(running, lane.boundary)
                running.late = running.late or eta > running.deadline

    def eta(self, request: Request, start: Ns) -> Ns:
        """When `request` would be done if it went on at `start`, undisturbed."""
        return Ns(start + self.costs(request).remaining(request.progress))

    def queued(self) -> Iterator[Request]:
        """Every waiting request."""
        for tenant in self.tenants.values():
            yield from tenant.queue

    def admit(self, request: Request) -> None:
        """A new request joins its tenant's queue."""
        tenant = self.tenants[request.tenant]
        self.requests[request.id] = request
        tenant.live += 1
        tenant.queue.push(request)
        self.expiry.push(request)

    def forget(self, request: Request) -> None:
        """An answered request leaves."""
        self.expiry.discard(request)
        self.free_arena(request)
        self.tenants[request.tenant].live -= 1
        del self.requests[request.id]

    def wait(self, request: Request, now: Ns) -> None:
        """`request` goes (back) to its tenant's queue, without an arena."""
        request.move(State.WAITING, now)
        self.free_arena(request)
        self.tenants[request.tenant].queue.push(request)

    def park(self, request: Request, now: Ns) -> None:
        """`request` is set aside with its arena."""
        request.move(State.PARKED, now)
        self.parked[request.id] = request

    def unplace(self, request: Request) -> None:
        """Take `request` out of where it waits or is parked."""
        if request.state is State.WAITING:
            self.tenants[request.tenant].queue.remove(request)
        elif request.state is State.PARKED:
            del self.parked[request.id]

    def take_arena(self, request: Request, now: Ns) -> None:
        """See that `request` has an arena, if need be that of a late parked request, which then
        starts over one day."""
        if request.arena is not None:
            return
        tenant = self.tenants[request.tenant]
        if not tenant.arenas:
            victim = self.evictable(request.tenant)
            if victim is None:
                raise request.broken("chosen without an arena to run in")
            self.unplace(victim)
            victim.progress = 0
            self.wait(victim, now)
        request.arena = tenant.arenas.pop()

    def free_arena(self, request: Request) -> None:
        """Give the arena of `request` back, if it holds one."""
        if request.arena is not None:
            self.tenants[request.tenant].arenas.append(request.arena)
            request.arena = None
