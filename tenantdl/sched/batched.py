"""Batching above the spatial scheduler, as one pure object with the same two calls.

    requests ─▶ Batcher ─ Batch ─▶ one request of the Scheduler ─▶ lanes
                   ▲                        │
                   └────── Finished ────────┴─▶ the last word to every member

Requests of tenants that batch, for models with plans for several, wait in a queue of the `Batcher`
(Symphony's: when to start, whom to drop). A batch is a request of the `Scheduler`, which gets cores
and variants as any other. Slots are lanes. l(b) is a quantile of what batches do take (`Times`)
over the scheduler's own costs, times the slowdown that it foresees; Orloj's score ranks ready
batches. All other requests go straight to the `Scheduler`.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from heapq import heappop, heappush

from tenantdl.errors import InvariantError
from tenantdl.ids import ModelId, RequestId, TenantId
from tenantdl.sched.batching import messages as batching
from tenantdl.sched.batching.config import QueueSpec
from tenantdl.sched.config import SchedulerConfig
from tenantdl.sched.costs import UNDISTURBED
from tenantdl.sched.family import Family, Member, Under, Works, new_batcher, new_family
from tenantdl.sched.messages import (
    BlockFinished,
    Cancelled,
    Command,
    Complete,
    Dissolved,
    Event,
    Gathered,
    ModelRemoved,
    Reason,
    Reject,
    RequestArrived,
    TenantDeclared,
    TenantRemoved,
    Tick,
)
from tenantdl.sched.request import State
from tenantdl.sched.scheduler import Scheduler
from tenantdl.sched.state import Counts
from tenantdl.units import Ns

# Numbers of batches, apart from those of requests; both fit 32 bits.
FIRST_BATCH = 1 << 31
# Slowdowns that differ by less than this are the same.
_SLOWDOWN_STEP = 0.05


class BatchedScheduler:
    """One machine's scheduler, with batching. `families`: what is batched, and how it went. Raises
    InvariantError for events that cannot be."""

    def __init__(self, config: SchedulerConfig) -> None:
        self._scheduler = Scheduler(config)
        self.book = self._scheduler.book
        self._config = config
        self.families: dict[tuple[str, ModelId, int], Family | None] = {}
        self._works: Works = {}
        self._of_queue: list[Family] = []
        self._batcher = new_batcher(config, self._of_queue)
        self._inside: Counter[TenantId] = Counter()
        self._members: dict[RequestId, Member] = {}
        self._under: dict[RequestId, Under] = {}
        self._expiry: list[tuple[int, RequestId]] = []
        self._batches = FIRST_BATCH
        self._now = Ns(0)
        self._out: list[Command] = []
        # What the scheduler is still to be told: its commands are obeyed in order.
        self._pending: deque[Event] = deque()

    # --- what the driver calls

    def handle(self, event: Event, now: Ns) -> list[Command]:
        """Take `event` in at time `now` (which never goes back) and say what to do."""
        self._now, self._out = now, []
        match event:
            case RequestArrived():
                family = self._family(event)
                if family is None:
                    self._pending.append(event)
                else:
                    self._arrive(event, family)
            case Cancelled():
                self._cancel(event)
            case BlockFinished():
                if under := self._under.get(event.request):
                    under.ran(self.book.lanes[event.lane].running, event)
                self._pending.append(event)
            case Tick():
                self._pending.append(event)
                self._batch(batching.Tick())
            case ModelRemoved() | TenantDeclared() | TenantRemoved():
                self.families.clear()  # requests that wait know theirs
                self._pending.append(event)
            case _:
                self._pending.append(event)
        self._expire()
        while self._pending:
            for command in self._scheduler.handle(self._pending.popleft(), now):
                self._pass(command)
        return self._out

    def next_wakeup(self) -> Ns | None:
        """When a Tick is due, None if only events matter."""
        while self._expiry and not self._waits(self._expiry[0][1]):
            heappop(self._expiry)
        first = Ns(self._expiry[0][0]) if self._expiry else None
        due = (self._scheduler.next_wakeup(), self._batcher.next_wakeup(), first)
        return min((time for time in due if time is not None), default=None)

    def backlog(self) -> bool:
        """Whether there is work beyond the launches that are out."""
        return self._scheduler.backlog() or len(self._members) > len(self._under)

    def check(self) -> None:
        """Raise InvariantError unless every request is accounted for, once."""
        self._scheduler.check()
        waiting = set(self._batcher.waiting())
        for number, member in self._members.items():
            under = self._under.get(member.batch) if member.batch is not None else None
            if (number in waiting) == (under is not None and number in under.members):
                raise InvariantError(f"request {number} waits and runs, or neither: {member}")

    def counts(self) -> Counts:
        """What was done so far."""
        return self._scheduler.counts()

    def live(self) -> dict[RequestId, State]:
        """The state of every request that is not answered yet."""
        states = self._scheduler.live()
        batches = {number: states.pop(number) for number in self._under if number in states}
        for number, member in self._members.items():
            states[number] = State.WAITING if member.batch is None else batches[member.batch]
        return states

    # --- requests

    def _family(self, event: RequestArrived) -> Family | None:
        queue = self.book.tenants[event.tenant].spec.queue
        key = queue or event.tenant, event.model, event.plan
        if key not in self.families:
            self.families[key] = new_family(self.book, event, self._works)
        return self.families[key]

    def _arrive(self, event: RequestArrived, family: Family) -> None:
        if event.request in self._members:
            raise InvariantError(f"request {event.request} arrived twice")
        most = self.book.tenants[event.tenant].spec.queue_max
        if self._inside[event.tenant] >= most:
            self._out.append(Reject(event.request, Reason.QUEUE_FULL))
        elif event.expires <= self._now:
            self._out.append(Reject(event.request, Reason.EXPIRED))
        else:
            queue = self._queue(family, event.priority)
            waiting = batching.Request(event.request, self._now, event.deadline)
            self._members[event.request] = Member(event, family, queue, waiting)
            self._inside[event.tenant] += 1
            heappush(self._expiry, (event.expires, event.request))
            self._foresee(family)
            self._batch(batching.Arrived(batching.QueueId(queue), (waiting,)))

    def _queue(self, family: Family, priority: int) -> int:
        if priority not in family.queues:
            self._of_queue.append(family)
            terms = family.slo, priority, family.policy, family.varied
            spec = QueueSpec(family.name, family.lengths(), *terms)
            family.queues[priority] = self._batcher.open(spec)
        return family.queues[priority]

    def _foresee(self, family: Family) -> None:
        """Tell the batcher how much slower than alone batches would run now."""
        pressure = self.book.pressure_on(0)
        slowdown = family.costs[0].slowdown(0, pressure) / UNDISTURBED
        if abs(slowdown - family.slowdown) >= _SLOWDOWN_STEP:
            family.slowdown = slowdown
            self._tell(family, lambda queue: batching.Pressure(queue, slowdown))

    def _cancel(self, event: Cancelled) -> None:
        member = self._members.get(event.request)
        if member is None:
            self._pending.append(event)
        elif member.batch is None:
            self._withdraw(member, Reason.CANCELLED)
        else:
            member.doomed = Reason.CANCELLED
            members = self._under[member.batch].members
            if all(self._members[number].doomed for number in members):
                self._pending.append(Cancelled(member.batch))

    def _waits(self, number: RequestId) -> bool:
        member = self._members.get(number)
        return member is not None and member.batch is None

    def _expire(self) -> None:
        while self._expiry and self._expiry[0][0] <= self._now:
            _, number = heappop(self._expiry)
            if self._waits(number):
                self._withdraw(self._members[number], Reason.EXPIRED)

    def _withdraw(self, member: Member, reason: Reason) -> None:
        """A waiting request is answered without having run."""
        member.doomed = reason
        self._batch(batching.Cancelled(batching.QueueId(member.queue), member.waiting))

    def _forget(self, number: RequestId, last_word: Command | None) -> None:
        member = self._members.pop(number)
        self._inside[member.arrived.tenant] -= 1
        if last_word is not None:
            self._out.append(last_word)

    # --- batches

    def _batch(self, event: batching.Event) -> None:
        """Tell the batcher; do as it says."""
        for command in self._batcher.handle(event, self._now):
            if isinstance(command, batching.Batch):
                self._gather(command)
            else:
                self._drop(command)

    def _tell(self, family: Family, event: Callable[[batching.QueueId], batching.Event]) -> None:
        for queue in family.queues.values():
            self._batch(event(batching.QueueId(queue)))

    def _drop(self, command: batching.Drop) -> None:
        number, member = command.request.id, self._members[command.request.id]
        if command.why is batching.Why.CANCELLED:
            self._forget(number, Reject(number, member.doomed or Reason.CANCELLED))
            return
        waited = Ns(self._now - command.request.arrived)
        member.family.patience.observe(waited, served=False)
        if self._config.refuse_infeasible:
            self._forget(number, Reject(number, Reason.DEADLINE_INFEASIBLE))
        else:  # late, but still wanted: alone, behind all that can be in time
            member.family.passed_on += 1
            self._forget(number, None)
            self._pending.append(member.arrived)

    def _gather(self, batch: batching.Batch) -> None:
        family = self._of_queue[batch.queue]
        members = [self._members[request.id].arrived for request in batch.requests]
        numbers = tuple(request.id for request in batch.requests)
        one = RequestArrived(
            RequestId(self._batches),
            members[0].tenant,
            family.model,
            family.plan(len(numbers)),
            deadline=min(member.deadline for member in members),
            expires=max(member.expires for member in members),
            priority=min(member.priority for member in members),
        )
        self._batches += 1
        family.batches += 1
        family.served += len(numbers)
        self._under[one.request] = Under(batch, family, numbers, family.slowdown)
        for request in batch.requests:
            self._members[request.id].batch = one.request
            family.patience.observe(Ns(self._now - request.arrived), served=True)
        self._out.append(Gathered(one, numbers))
        self._pending.append(one)

    def _pass(self, command: Command) -> None:
        """A command of the scheduler, on to the driver; about a batch, to its members."""
        if isinstance(command, Complete | Reject) and command.request in self._under:
            under = self._under.pop(command.request)
            for number in under.members:
                self._answer(number, command, len(under.members) > 1)
            self._out.append(Dissolved(command.request))
            self._finish(under, isinstance(command, Complete))
        else:
            self._out.append(command)

    def _answer(self, number: RequestId, command: Complete | Reject, several: bool) -> None:
        member = self._members[number]
        if member.doomed:
            self._forget(number, Reject(number, member.doomed))
        elif isinstance(command, Complete):
            self._forget(number, Complete(number))
        elif command.reason is Reason.EXECUTION_FAILED and several:
            # One of them may have been at fault: each alone.
            self._forget(number, None)
            self._pending.append(member.arrived)
        else:
            self._forget(number, Reject(number, command.reason))

    def _finish(self, under: Under, ran: bool) -> None:
        """A slot is free; what has been learned."""
        batch, family = under.batch, under.family
        if ran and under.learn():
            times = family.lengths()
            self._tell(family, lambda queue: batching.Retimed(queue, times))
        self._foresee(family)
        took = Ns(max(0, self._now - batch.earliest))
        self._batch(batching.Finished(batch.slot, batch.batch, batch.earliest, took))
