"""One queue of the batcher: waiting requests by deadline, the arrival rate, the candidate batch.

All times are integer ns. `deadlines` are those of the slots: the request's, less the way back.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import Final

from tenantdl.sched.batching.config import Network, QueueSpec
from tenantdl.sched.batching.latency import Latency, busy_slots, target_batch, useful_size
from tenantdl.sched.batching.messages import Request
from tenantdl.sched.batching.rate import RateMeter

# What becomes of the candidate: none, its start is awaited, it waits for a slot.
IDLE: Final = 0
PENDING: Final = 1
READY: Final = 2

# Spent heads are cut off the lists when there are so many of them.
_SPENT_MAX: Final = 512


class Queue:
    """`size`, `start`, `deadline`: the candidate, see `Batcher`. `target`: the size aimed for;
    `slots`: how many slots the queue keeps busy in batches of it; `useful`: the size beyond which
    batches serve hardly more requests a second."""

    def __init__(self, spec: QueueSpec, network: Network, among: int = 8) -> None:
        """`among`: how many slots there are, for all queues together."""
        self.among: int = among
        self.priority: int = spec.priority
        self.varied: bool = spec.varied
        self.control: int = network.control
        self.data: int = network.data
        self.response: int = network.response
        self.jitter: int = network.jitter
        self.budget: int = spec.slo - network.response - network.control - network.jitter
        self.latency = Latency(spec.times)
        self.slowdown: float = 1.0
        self._alone: tuple[int, ...] = tuple(spec.times)
        self.deadlines: list[int] = []
        self.requests: list[Request] = []
        self.head: int = 0
        self.meter = RateMeter()
        self.target: int = self.latency.size_max
        self.useful: int = 1
        self.slots: float = 0.0
        self.defers: bool = False
        self.state: int = IDLE
        self.size: int = 0
        self.start: int = 0
        self.deadline: int = 0
        self._with_data = self.latency
        self._retime()

    def retime(self, times: tuple[int, ...]) -> None:
        """Batches run in `times` from now on, when nothing slows them down."""
        self._alone = times
        self._retime()

    def press(self, slowdown: float) -> None:
        """Batches run `slowdown` times as long as alone."""
        self.slowdown = max(slowdown, 1.0)
        self._retime()

    def _retime(self) -> None:
        times = self._alone
        if self.slowdown > 1.0:
            times = tuple(round(time * self.slowdown) for time in times)
        self.latency = Latency(times)
        self._with_data = self.latency
        if self.data:
            self._with_data = Latency([t + self.data * b for b, t in enumerate(times, 1)])
        self.target = min(self.target, self.latency.size_max)
        self.useful = useful_size(self.latency)
        if self.meter.known:
            self._aim()

    def _aim(self) -> None:
        rate = self.meter.rate
        self.target = target_batch(self.latency, rate, self.budget, self.data)
        self.slots = busy_slots(self.latency, rate, self.target)

    def __len__(self) -> int:
        return len(self.deadlines) - self.head

    def push(self, requests: tuple[Request, ...], now: int) -> bool:
        """Take requests in; whether all are behind the first that was there."""
        deadlines, behind = self.deadlines, len(self) > 0
        response = self.response
        for request in requests:
            deadline = request.deadline - response
            if self.head == len(deadlines) or deadline >= deadlines[-1]:
                deadlines.append(deadline)
                self.requests.append(request)
            else:
                place = bisect_right(deadlines, deadline, self.head)
                behind = behind and place > self.head
                deadlines.insert(place, deadline)
                self.requests.insert(place, request)
        if self.meter.count(len(requests), now):
            self._aim()
        return behind

    def grows(self, now: int) -> bool:
        """Whether the candidate would be in time with one more request."""
        size = self.size
        return size < self.latency.size_max and self.holds(self.deadline, size + 1, now, now)

    def cancel(self, request: Request) -> bool:
        """Take a waiting request out; whether it was there."""
        deadline = request.deadline - self.response
        place = bisect_left(self.deadlines, deadline, self.head)
        while place < len(self.deadlines) and self.deadlines[place] == deadline:
            if self.requests[place].id == request.id:
                del self.deadlines[place], self.requests[place]
                return True
            place += 1
        return False

    def pop(self, count: int) -> tuple[Request, ...]:
        """Take the first `count` requests out."""
        taken = tuple(self.requests[self.head : self.head + count])
        self.skip(count)
        return taken

    def skip(self, count: int) -> None:
        """Forget the first `count` requests."""
        self.head += count
        if self.head == len(self.deadlines):
            self.deadlines.clear()
            self.requests.clear()
            self.head = 0
        elif self.head >= _SPENT_MAX:
            del self.deadlines[: self.head], self.requests[: self.head]
            self.head = 0

    def earliest_end(self, size: int, now: int, free: int) -> int:
        """When a batch of `size` granted now, on a slot free at `free`, ends."""
        delivered: int = now + self.control + self._with_data.times[size]
        following: int = free + self.latency.times[size]
        return delivered if delivered > following else following

    def holds(self, deadline: int, size: int, now: int, free: int) -> bool:
        """Whether such a batch ends by `deadline`."""
        return self.earliest_end(size, now, free) <= deadline

    def fit(self, deadline: int, now: int, free: int) -> int:
        """The largest batch granted now, on a slot free at `free`, that ends by `deadline`."""
        size = self._with_data.fit(deadline - now - self.control, self.size)
        if free > now:
            size = min(size, self.latency.fit(deadline - free, self.size))
        return size

    def lead(self, size: int) -> int:
        """How long orders and inputs of a batch are under way."""
        return self.control + self.data * size

    @property
    def invalid_after(self) -> int:
        """When the candidate must have begun to run."""
        return self.deadline - self.latency.times[self.size]
