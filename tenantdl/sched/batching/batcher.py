"""Deferred batch scheduling (Symphony, arXiv 2308.07470 §3–4) as a value transformer.

    commands = batcher.handle(event, now)
    due = batcher.next_wakeup()         # send a Tick then, if nothing happens before

Each queue posts one candidate: its size, when it should start (`policies`), and the time after
which it would be late. At its start it takes the lowest-numbered idle slot, so that load gathers
on few slots; if none is free it is *ready*, and a slot that becomes free takes the best ready
candidate (`order`). What happens to a queue replaces its candidate by a new one. A request costs
O(log n) in the number of queues. Every request gets exactly one place in a Batch, or one Drop.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from tenantdl.errors import InvariantError
from tenantdl.ids import RequestId
from tenantdl.sched.batching.config import BatchingConfig, QueueSpec
from tenantdl.sched.batching.messages import (
    Arrived,
    Batch,
    BatchId,
    Cancelled,
    Command,
    Drop,
    Event,
    Finished,
    Pressure,
    QueueId,
    Request,
    Retimed,
    SlotId,
    Tick,
    Why,
)
from tenantdl.sched.batching.order import KEYS, KeyOrder, Order
from tenantdl.sched.batching.policies import Policy, policy
from tenantdl.sched.batching.queue import IDLE, PENDING, READY, Queue
from tenantdl.sched.batching.slots import Slots
from tenantdl.sched.batching.tournament import NEVER, Tournament
from tenantdl.units import Ns


class Tally(NamedTuple):
    """Since the start: requests that came, were dropped and were sent to slots; batches; ns of slot
    time given to them."""

    arrived: int
    dropped: int
    served: int
    batches: int
    busy: int


class Batcher:
    """One group of slots and the queues that share it. Raises InvariantError for events that cannot
    be. `orders` makes the order of ready candidates for n queues; by default `config.order`."""

    def __init__(
        self, config: BatchingConfig, orders: Callable[[int], Order] | None = None
    ) -> None:
        if orders is None and config.order not in KEYS:
            raise InvariantError(f"order {config.order!r} is none of {sorted(KEYS)}")
        self._network = config.network
        self._policy = config.policy
        self._make = orders or (lambda n: KeyOrder(KEYS[config.order], n))
        self.queues: list[Queue] = []
        self._policies: list[Policy] = []
        self.slots = Slots(config.slots, ahead=config.network.control + config.network.data > 0)
        self._timers = Tournament(0)
        self._ready: list[Order] = []
        # The place of each queue's priority class in `_ready`.
        self._class: list[int] = []
        self._now: int = 0
        self._wakeup: int = NEVER
        self._out: list[Command] = []
        self._arrived: int = 0
        self._served: int = 0
        self._batches: int = 0
        self._busy: int = 0
        self._dropped: int = 0
        for spec in config.queues:
            self._add(spec)
        self._arrange()

    def open(self, spec: QueueSpec) -> int:
        """One more queue; its number."""
        self._add(spec)
        self._arrange()
        return len(self.queues) - 1

    def _add(self, spec: QueueSpec) -> None:
        self.queues.append(Queue(spec, self._network, self.slots.count))
        self._policies.append(policy(spec.policy or self._policy))

    def _arrange(self) -> None:
        """Make room for all queues in what is kept of them together."""
        count = len(self.queues)
        timers = Tournament(count)
        for number in range(min(count, self._timers.count)):
            timers.set(number, self._timers.key_of(number))
        self._timers = timers
        classes = sorted({queue.priority for queue in self.queues})
        self._class = [classes.index(queue.priority) for queue in self.queues]
        self._ready = [self._make(count) for _ in classes]
        for number, queue in enumerate(self.queues):
            if queue.state == READY:
                self._ready[self._class[number]].add(number, queue)

    def handle(self, event: Event, now: Ns) -> list[Command]:
        """Take `event` in at time `now` (which never goes back) and say what to do."""
        if now < self._now:
            raise InvariantError(f"time went back from {self._now} to {now}")
        self._now = now
        out: list[Command] = []
        self._out = out
        if isinstance(event, Arrived):
            number: int = event.queue
            requests: tuple[Request, ...] = event.requests
            self._arrived += len(requests)
            queue = self.queues[number]
            behind = queue.push(requests, now)
            if behind and queue.state == READY and not self.slots.open and not queue.grows(now):
                return out  # it goes on waiting for a slot, or to be late
            self._post(number, now)
        elif isinstance(event, Finished):
            self.slots.finish(event.slot, event.batch, event.began + event.elapsed)
        elif isinstance(event, Cancelled):
            if self.queues[event.queue].cancel(event.request):
                out.append(Drop(event.queue, event.request, Why.CANCELLED))
                self._post(event.queue, now)
        elif isinstance(event, Retimed):
            self.queues[event.queue].retime(event.times)
            self._post(event.queue, now)
        elif isinstance(event, Pressure):
            self.queues[event.queue].press(event.slowdown)
            self._post(event.queue, now)
        elif not isinstance(event, Tick):
            raise TypeError(f"not an event: {event!r}")
        self._match(now)
        return out

    def next_wakeup(self) -> Ns | None:
        """When a Tick is due, None if only events matter."""
        return None if self._wakeup >= NEVER else Ns(self._wakeup)

    def due(self, now: int) -> bool:
        """Whether a Tick is due at `now`."""
        return self._wakeup <= now

    def tally(self) -> Tally:
        """What has been done so far: for metrics and `advice`."""
        return Tally(self._arrived, self._dropped, self._served, self._batches, self._busy)

    def waiting(self) -> list[RequestId]:
        """The requests that are neither sent to a slot nor dropped."""
        return [request.id for queue in self.queues for request in queue.requests[queue.head :]]

    # --- candidates

    def _post(self, number: int, now: int) -> None:
        """Replace the candidate of queue `number`."""
        queue = self.queues[number]
        was_ready = queue.state == READY
        size = self._sized(number, queue, now, now)
        if size == 0:
            queue.state = IDLE
            self._timers.set(number, NEVER)
        else:
            queue.size = size
            queue.deadline = queue.deadlines[queue.head]
            lead = queue.control + queue.data * size
            queue.start = max(self._policies[number].start(queue, size, now), now + lead)
            if queue.start <= now + lead:
                self._make_ready(number, queue, now)
                return
            queue.state = PENDING
            self._timers.set(number, queue.start - lead)
        if was_ready:
            self._ready[self._class[number]].discard(number)

    def _make_ready(self, number: int, queue: Queue, now: int) -> None:
        """The candidate of queue `number` may begin; look again when it would be late."""
        queue.state = READY
        self._ready[self._class[number]].add(number, queue)
        late = queue.invalid_after - queue.lead(queue.size) + 1
        self._timers.set(number, late if late > now else NEVER)

    def _sized(self, number: int, queue: Queue, now: int, free: int) -> int:
        """The size of a batch on a slot that is free at `free`, after drops."""
        before = len(self._out)
        size = self._policies[number].form(number, queue, now, free, self._out)
        self._dropped += len(self._out) - before
        return size

    # --- slots

    def _match(self, now: int) -> None:
        """Bring candidates and slots together, and find out when to look again."""
        timers = self._timers
        while timers.key <= now:
            number = timers.best
            queue = self.queues[number]
            if queue.state == PENDING:
                self._make_ready(number, queue, now)
            else:
                self._post(number, now)
        wakeup = NEVER
        while self.slots.open and (number := self._best(now)) >= 0:
            lead = self.queues[number].lead(self.queues[number].size)
            slot = self.slots.pick(now, now + lead)
            if slot < 0:
                wakeup = min(self.slots.next_free(now), NEVER) - lead
                break
            self._grant(number, slot, now)
        self._wakeup = min(timers.key, max(wakeup, now + 1))

    def _best(self, now: int) -> int:
        for order in self._ready:
            number = order.best(now)
            if number >= 0:
                return number
        return -1

    def _grant(self, number: int, slot: int, now: int) -> None:
        """Queue `number` gets `slot`: form the batch for when that is free, send it, go on."""
        queue = self.queues[number]
        free = max(self.slots.free_at[slot], now)
        size = self._sized(number, queue, now, free)
        if size:
            deadline = queue.deadlines[queue.head]
            planned = queue.latency.times[size]
            earliest = max(now + queue.lead(size), free)
            requests = queue.pop(size)
            self._batches += 1
            self._served += size
            self._busy += planned
            self.slots.assign(slot, self._batches, earliest + planned, planned)
            self._out.append(
                Batch(
                    BatchId(self._batches),
                    QueueId(number),
                    SlotId(slot),
                    requests,
                    Ns(earliest),
                    Ns(deadline - planned),
                    Ns(planned),
                )
            )
        self._post(number, now)
