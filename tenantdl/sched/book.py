"""What the scheduler knows: requests, tenants' queues, arenas, lanes, costs. No decisions here.

Every order is total (ranks end in the sequence number) and nothing iterates over a set, so that
the same events give the same commands.
"""

from __future__ import annotations

from collections.abc import Iterator

from tenantdl.errors import InvariantError
from tenantdl.ids import LaneId, RequestId, TenantId
from tenantdl.sched.config import SchedulerConfig
from tenantdl.sched.cores import CoreMap
from tenantdl.sched.costs import UNDISTURBED, PlanCosts
from tenantdl.sched.messages import BlockFinished, Launch
from tenantdl.sched.queue import RankedQueue, RankFunction
from tenantdl.sched.request import Request, State
from tenantdl.sched.served import Served
from tenantdl.sched.state import Counts, Lane, Tenant, Usage
from tenantdl.units import SECOND, Ns

_NEVER = Ns(0)
# Of a block's implied pressure, in the interference level.
_LEVEL_WEIGHT = 16


class Book:
    """All state of a scheduler. `late`: how many of the `requests` are. `wakeup`: when the policy
    wants to be asked again."""

    def __init__(self, config: SchedulerConfig, rank: RankFunction) -> None:
        self.config = config
        self.rank = rank
        self.cores = CoreMap(config.lanes, config.domains)
        self.cores_max = self.cores.size(self.cores.everything)
        self.by_bit = [Lane(spec.lane, 1 << bit) for bit, spec in enumerate(config.lanes)]
        self.lanes = {lane.id: lane for lane in self.by_bit}
        self.busy: dict[LaneId, Lane] = {}
        self.ready = 0
        self.free = 0
        self.served = Served(config, self.cores_max, rank)
        self.models, self.tenants = self.served.models, self.served.tenants
        self.waiting: dict[TenantId, Tenant] = {}
        self.requests: dict[RequestId, Request] = {}
        self.parked: dict[RequestId, Request] = {}
        self.late = 0
        self.expiry = RankedQueue(lambda request: (request.expires, request.seq))
        self.counts = Counts()
        self.pressure = 0
        self.level = 0
        self.sensitivity = 0
        self.now = _NEVER
        self.wakeup: Ns | None = None
        self.usage = Usage()
        self.usage.sum_up(self.tenants.values())
        self._spent_at = 0

    # --- cores

    def place(self, lane: Lane, launch: Launch, mask: int) -> None:
        """`launch` goes to `lane` with the cores of `mask`; raises InvariantError unless they are
        free or the lane's."""
        if mask & ~(self.free | lane.held) or not mask & lane.bit:
            raise InvariantError(f"launch {launch.launch} on cores that are not its own: {mask:b}")
        lane.pending.append(launch)
        lane.masks[launch.launch] = mask
        self.settle(lane)

    def settle(self, lane: Lane) -> None:
        """`lane` holds other launches than before: what of the cores is free now."""
        freed = self.free | lane.held
        self.pressure -= lane.pressure
        self.sensitivity -= lane.sensitivity
        orders = [lane.running, *lane.pending] if lane.running else lane.pending
        held = 0
        for order in orders:
            held |= lane.masks[order.launch]
        if len(lane.masks) > len(orders):
            lane.masks = {order.launch: lane.masks[order.launch] for order in orders}
        lane.held = held
        self.free = freed & ~held & self.ready
        if not orders:
            lane.pressure = lane.sensitivity = 0
            self.busy.pop(lane.id, None)
            return
        newest = orders[-1]
        request = self.requests[newest.request]
        lane.pressure = request.costs.exerts(newest.variant, len(newest.cores))
        self.pressure += lane.pressure
        slope = request.costs.slowdown(newest.variant, UNDISTURBED) - UNDISTURBED
        lane.sensitivity = slope * len(newest.cores)
        self.sensitivity += lane.sensitivity
        self.busy[lane.id] = lane

    def set_ready(self, lane: Lane, ready: bool) -> None:
        """`lane` has come up or gone down, with nothing to run."""
        lane.ready = ready
        lane.running, lane.pending = None, []
        self.settle(lane)
        self.ready = self.ready | lane.bit if ready else self.ready & ~lane.bit
        self.free = self.ready & ~self.held()

    def held(self) -> int:
        """The cores that any lane holds."""
        held = 0
        for lane in self.busy.values():
            held |= lane.held
        return held

    def pressure_on(self, own: int) -> int:
        """What all launches but one of pressure `own` exert, in 1/1000 of a full machine."""
        return (self.pressure - own) // self.cores_max

    def sense(self, costs: PlanCosts, launch: Launch, event: BlockFinished, pressure: int) -> None:
        """A block of `launch` is done, which others exerted `pressure` on: how long it was expected
        to take is noted, and the machine's interference level moves towards the pressure at which
        it would have taken what it did."""
        variant = launch.variant
        alone = costs.at(variant, len(launch.cores)).between(event.begin, event.end)
        self.counts.expected = Ns(alone * costs.slowdown(variant, pressure) // UNDISTURBED)
        full = costs.slowdown(variant, UNDISTURBED) - UNDISTURBED
        if full > 0:
            slower = event.elapsed * UNDISTURBED // max(1, alone) - UNDISTURBED
            implied = max(0, min(UNDISTURBED, slower * UNDISTURBED // full))
            self.level += (implied - self.level) // _LEVEL_WEIGHT

    def spend(self, request: Request, event: BlockFinished, cores: int, now: Ns) -> None:
        """The tenant of `request` had so many cores for a block."""
        got = request.costs.said(event.begin, event.end)
        self.charge(self.tenants[request.tenant], event.elapsed * cores, got, now)

    def charge(self, tenant: Tenant, used: int, got: int, now: Ns) -> None:
        """`tenant` has used so much core time (ns), for work that was said to take `got`."""
        if (second := now // SECOND) > self._spent_at:
            shift = min(second - self._spent_at, 64)
            self._spent_at = second
            for other in self.tenants.values():
                other.used >>= shift
                other.got >>= shift
            self.usage.sum_up(self.tenants.values())
        tenant.used += used
        tenant.got += got
        self.usage.add(tenant, used, got)

    # --- requests

    def running(self, lane: Lane) -> Request | None:
        """The request that `lane` is known to run."""
        return self.requests[lane.running.request] if lane.running else None

    def near_end(self, lane: Lane) -> bool:
        """Whether the running launch has begun its last block: time to say what comes next."""
        launch = lane.running
        if launch is None:
            return False
        return len(launch.ends) == 1 or self.requests[launch.request].progress >= launch.ends[-2]

    def backlog(self) -> bool:
        """Whether there is work beyond the launches that are out."""
        if self.parked or self.waiting:
            return True
        orders = [(lane.running, self.running(lane)) for lane in self.busy.values()]
        return any(r and o and o.end < r.costs.count for o, r in orders)

    def has_arena(self, request: Request) -> bool:
        """Whether `request` holds an arena, could get one, or could take a late one's."""
        if request.arena is not None or self._arena_is_free(request):
            return True
        return not request.late and self._evictable(request) is not None

    def _arena_is_free(self, request: Request) -> bool:
        tenant = self.tenants[request.tenant]
        may = tenant.under_way < tenant.spec.arenas
        return may and self.models[request.model].has_arena

    def _evictable(self, request: Request) -> Request | None:
        """The late parked request whose arena `request` could have: of its own tenant, that which
        has least to lose."""
        late = [r for r in self.parked.values() if r.late and r.tenant == request.tenant]
        if not self.models[request.model].has_arena:
            late = [r for r in late if r.model == request.model]
        return min(late, key=lambda r: (r.progress, r.seq), default=None)

    def mark_late(self, now: Ns, margin: int = UNDISTURBED, modest: bool = False) -> None:
        """Find out which requests cannot meet their deadlines any more, if the fastest way to
        finish them takes `margin` times (in 1/1000) what it does undisturbed. `modest`: while there
        are more of them than cores nobody gets more cores than its target takes."""
        crowded = modest and len(self.requests) > self.cores_max

        def hopeless(request: Request, start: Ns) -> bool:
            costs = request.costs
            left = costs.remaining(request.progress)
            if crowded and start + left <= request.deadline:
                cores = costs.enough(request.deadline - request.arrived)
                left = costs.at(0, cores).remaining(request.progress)
            return start + left * margin // UNDISTURBED > request.deadline

        for tenant in self.waiting.values():
            queue = tenant.queue
            while (head := queue.head) and not head.late and hopeless(head, now):
                queue.remove(head)
                self._give_up(head)
                queue.push(head)
        for request in self.parked.values():
            if not request.late and hopeless(request, now):
                self._give_up(request)
        for lane in self.busy.values():
            running = self.running(lane)
            if running and not running.late and hopeless(running, lane.boundary):
                self._give_up(running)

    def _give_up(self, request: Request) -> None:
        request.late = True
        self.late += 1

    def eta(self, request: Request, start: Ns) -> Ns:
        """When `request` would be done if it went on at `start`, undisturbed."""
        return Ns(start + request.costs.remaining(request.progress))

    def queued(self) -> Iterator[Request]:
        """Every waiting request."""
        for tenant in self.tenants.values():
            yield from tenant.queue

    def admit(self, request: Request) -> None:
        """A new request joins its tenant's queue."""
        tenant = self.tenants[request.tenant]
        self.requests[request.id] = request
        tenant.live += 1
        self.models[request.model].live += 1
        self._enqueue(request)
        self.expiry.push(request)

    def surplus(self, tenant: Tenant) -> list[Request]:
        """Of a queue that is more than half full, the requests that wait in vain."""
        if 2 * tenant.live <= tenant.spec.queue_max:
            return []
        return [request for request in tenant.queue if request.late]

    def forget(self, request: Request) -> None:
        """An answered request leaves."""
        self.expiry.discard(request)
        self.free_arena(request)
        self.tenants[request.tenant].live -= 1
        self.models[request.model].live -= 1
        self.late -= request.late
        del self.requests[request.id]

    def wait(self, request: Request, now: Ns) -> None:
        """`request` goes (back) to its tenant's queue, without an arena."""
        request.move(State.WAITING, now)
        self.free_arena(request)
        self._enqueue(request)

    def _enqueue(self, request: Request) -> None:
        tenant = self.tenants[request.tenant]
        tenant.queue.push(request)
        self.waiting[request.tenant] = tenant

    def park(self, request: Request, now: Ns) -> None:
        """`request` is set aside with its arena."""
        request.move(State.PARKED, now)
        self.parked[request.id] = request

    def unplace(self, request: Request) -> None:
        """Take `request` out of where it waits or is parked."""
        if request.state is State.WAITING:
            queue = self.tenants[request.tenant].queue
            queue.remove(request)
            if not len(queue):
                del self.waiting[request.tenant]
        elif request.state is State.PARKED:
            del self.parked[request.id]

    def take_arena(self, request: Request, now: Ns) -> None:
        """See that `request` has an arena, if need be that of a late parked request, which then
        starts over one day."""
        if request.arena is not None:
            return
        if not self._arena_is_free(request):
            victim = self._evictable(request)
            if victim is None:
                raise request.broken("chosen without an arena to run in")
            self.unplace(victim)
            victim.progress = 0
            self.wait(victim, now)
        self.tenants[request.tenant].under_way += 1
        request.arena = self.models[request.model].take_arena()

    def free_arena(self, request: Request) -> None:
        """Give the arena of `request` back, if it holds one."""
        if request.arena is not None:
            self.tenants[request.tenant].under_way -= 1
            self.models[request.model].free.append(request.arena)
            request.arena = None
