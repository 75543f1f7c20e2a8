"""A batcher in real time with slots that only keep time (Symphony's scheduler-only protocol, §5).

Requests are generated in the loop itself, so one core carries generator, batcher and slots. All
that came since the last round go to their queues together. The clock is an argument, a function
that tells ns: nothing here knows of time but through it.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from typing import Final

from tenantdl.ids import RequestId
from tenantdl.sched.batching.batcher import Batcher
from tenantdl.sched.batching.messages import (
    Arrived,
    Batch,
    BatchId,
    Command,
    Event,
    Finished,
    QueueId,
    Request,
    SlotId,
    Tick,
)
from tenantdl.units import Ns

# No answer is longer in coming than this, however far the loop is behind.
_ROUND_MAX: Final = 512


class Pace:
    """`gaps[i]` ns after the one before it, the next request is due for queue `queues[i]`; both are
    used round and round. `slo`: ns until its deadline.

    Counts from `since` on: `requests` generated, `good` of them in batches that end in time,
    `dropped`; `lags`: ns from when a round's first request was due until it was taken up, one a
    round that had any; `decisions`: ns of each event, if `timed`.
    """

    def __init__(self, batcher: Batcher, gaps: list[int], queues: list[int], slo: int) -> None:
        self.batcher = batcher
        self.gaps = gaps
        self.queues = queues
        self.slo: int = slo
        self.requests: int = 0
        self.good: int = 0
        self.dropped: int = 0
        self.lags: list[int] = []
        self.decisions: list[int] = []
        self.timed: bool = False
        self._since: int = 0
        self._finishing: list[tuple[int, int, int, int]] = []
        self._free_at: list[int] = [0] * batcher.slots.count

    def run(self, clock: Callable[[], int], since: int, until: int, timed: bool) -> None:
        """Generate requests up to `until` ns of `clock`, which has just begun at 0."""
        self.timed, self._since = timed, since
        gaps, queues, count, slo = self.gaps, self.queues, len(self.gaps), self.slo
        pending: list[list[Request]] = [[] for _ in self.batcher.queues]
        place: int = 0
        number: int = 0
        due: int = gaps[0]
        tick = Tick()
        while True:
            now: int = clock()
            if now >= until:
                return
            finishing = self._finishing
            while finishing and finishing[0][0] <= now:
                end, batch, slot, began = heappop(finishing)
                done = Finished(SlotId(slot), BatchId(batch), Ns(began), Ns(end - began))
                self._tell(done, now, clock)
            if due <= now:
                if now >= since:
                    self.lags.append(now - due)
                touched: list[int] = []
                first = number
                while due <= now and number - first < _ROUND_MAX:
                    queue = queues[place]
                    waiting = pending[queue]
                    if not waiting:
                        touched.append(queue)
                    number += 1
                    waiting.append(Request(RequestId(number), Ns(due), Ns(due + slo)))
                    place += 1
                    if place == count:
                        place = 0
                    due += gaps[place]
                if now >= since:
                    self.requests += number - first
                for queue in touched:
                    arrived = Arrived(QueueId(queue), tuple(pending[queue]))
                    pending[queue] = []
                    self._tell(arrived, now, clock)
            if self.batcher.due(now):
                self._tell(tick, now, clock)

    def _tell(self, event: Event, now: int, clock: Callable[[], int]) -> None:
        if self.timed and now >= self._since:
            begin = clock()
            commands = self.batcher.handle(event, Ns(now))
            self.decisions.append(clock() - begin)
        else:
            commands = self.batcher.handle(event, Ns(now))
        if commands:
            self._obey(commands, now)

    def _obey(self, commands: list[Command], now: int) -> None:
        for command in commands:
            if isinstance(command, Batch):
                slot: int = command.slot
                began: int = max(command.earliest, self._free_at[slot])
                end = began + command.planned
                self._free_at[slot] = end
                heappush(self._finishing, (end, command.batch, slot, began))
                if now >= self._since:
                    for request in command.requests:
                        self.good += end <= request.deadline
            elif now >= self._since:
                self.dropped += 1
