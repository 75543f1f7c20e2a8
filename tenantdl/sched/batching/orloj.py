"""Batching for models whose run time depends on the input (Orloj, arXiv 2209.00159; reconstructed).

    commands = orloj.handle(event, now)

Every queue ranks its requests once for each batch size k, by how much they lose if they wait
(`score`), given the learned distribution of the time of a batch of k with unknown mates. When a
slot is idle: drop what cannot be in time any more, take the largest k that can be filled and ends
before the earliest feasible deadline, and send the k best. Works whenever there is work, so it
needs no wake-ups.
"""

from __future__ import annotations

from heapq import heappop, heappush

import msgspec

from tenantdl.errors import InvariantError
from tenantdl.sched.batching.learn import Learner
from tenantdl.sched.batching.messages import (
    Arrived,
    Batch,
    BatchId,
    Cancelled,
    Command,
    Drop,
    Event,
    Finished,
    QueueId,
    Request,
    SlotId,
    Tick,
    Why,
)
from tenantdl.sched.batching.ranking import RANKINGS, Ranking
from tenantdl.sched.batching.score import ScoreTable
from tenantdl.sched.batching.slots import Slots
from tenantdl.units import Ns


class DynamicQueue(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A batch of k takes `c0` + `c1`·k·(what its longest request takes alone). `guess`: run times
    alone, in ns, as long as none are known. `sizes`: batch sizes, ascending from 1."""

    name: str
    c0: Ns
    c1: float
    guess: tuple[Ns, ...]
    sizes: tuple[int, ...] = (1, 2, 4, 8, 16)


class OrlojConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`delay`: how long a request that is passed over is expected to wait until the next choice.
    `ranking`: a key of `ranking.RANKINGS`. `sure`: a batch of k is "in time" for a deadline that it
    meets with this probability; `hopeless`: a request below this one is dropped."""

    queues: tuple[DynamicQueue, ...]
    slots: int
    delay: Ns
    ranking: str = "argmax"
    sure: float = 0.9
    hopeless: float = 0.05


class _Size:
    """A queue's requests ranked for batches of `size`."""

    def __init__(self, size: int, ranking: Ranking) -> None:
        self.size = size
        self.ranking = ranking
        self.inside: dict[int, int] = {}  # number → the last time it can begin
        self.ends: list[tuple[int, int]] = []  # heap of (that time, number)
        self.tables: dict[int, tuple[ScoreTable, int]] = {}
        self.length: Ns = Ns(0)


class _Queue:
    """Requests of one queue by number (in order of arrival)."""

    def __init__(self, spec: DynamicQueue, config: OrlojConfig) -> None:
        if not spec.sizes or spec.sizes[0] != 1 or list(spec.sizes) != sorted(set(spec.sizes)):
            raise InvariantError(f"batch sizes {spec.sizes} do not ascend from 1")
        self.config = config
        self.learner = Learner(spec.c0, spec.c1, spec.guess)
        self.requests: dict[int, Request] = {}
        self.deadlines: list[tuple[int, int]] = []
        self._arrivals = 0
        self._version = -1
        self._spec = spec
        self.sizes: list[_Size] = []

    def add(self, request: Request) -> None:
        """A request came."""
        self.learner.arrived(request.group)
        self._arrivals += 1
        self.requests[self._arrivals] = request
        heappush(self.deadlines, (request.deadline, self._arrivals))
        for rank in self.sizes:
            self._enter(rank, self._arrivals, request)

    def remove(self, number: int) -> Request:
        """Take one out."""
        for rank in self.sizes:
            if rank.inside.pop(number, None) is not None:
                rank.ranking.remove(number)
        return self.requests.pop(number)

    def refresh(self) -> None:
        """Rank anew if more has been learned."""
        if self.learner.version == self._version:
            return
        self._version = self.learner.version
        self.sizes = [_Size(k, RANKINGS[self.config.ranking]()) for k in self._spec.sizes]
        for rank in self.sizes:
            rank.length = Ns(round(self.learner.batch(rank.size).quantile(self.config.sure)))
            for number, request in self.requests.items():
                self._enter(rank, number, request)

    def _enter(self, rank: _Size, number: int, request: Request) -> None:
        if request.group not in rank.tables:
            time = self.learner.batch_of(request.group, rank.size)
            table = ScoreTable(time, self.config.delay, rank.size / time.mean)
            floor = time.quantile(self.config.hopeless)
            rank.tables[request.group] = (table, round(max(floor, table.shortest)))
        table, floor_ns = rank.tables[request.group]
        rank.inside[number] = request.deadline - floor_ns
        heappush(rank.ends, (request.deadline - floor_ns, number))
        rank.ranking.add(number, request.deadline, table)

    def purge(self, now: int) -> list[Request]:
        """Take out of each ranking what is hopeless at its size, and of the queue what is so alone;
        the latter."""
        dropped = []
        for rank in self.sizes:
            while rank.ends and rank.ends[0][0] < now:
                _, number = heappop(rank.ends)
                if number not in rank.inside:
                    continue
                if rank.size == 1:
                    dropped.append(self.remove(number))
                else:
                    del rank.inside[number]
                    rank.ranking.remove(number)
        return dropped

    def choose(self, now: int) -> _Size | None:
        """The largest size that can be filled and ends before the earliest deadline."""
        while self.deadlines and self.deadlines[0][1] not in self.requests:
            heappop(self.deadlines)
        if not self.deadlines:
            return None
        left = self.deadlines[0][0] - now
        for rank in reversed(self.sizes):
            if len(rank.inside) >= rank.size and (rank.length <= left or rank.size == 1):
                return rank
        raise InvariantError("a queue has requests, but none may run alone")

    def gain(self, rank: _Size, now: int) -> float:
        """The highest score for batches of this size."""
        number = rank.ranking.best(now)
        return rank.tables[self.requests[number].group][0].score(
            self.requests[number].deadline, now
        )

    def take(self, rank: _Size, now: int) -> tuple[Request, ...]:
        """Take the best requests out for one batch."""
        return tuple(self.remove(rank.ranking.best(now)) for _ in range(rank.size))


class Orloj:
    """Raises InvariantError for events that cannot be."""

    def __init__(self, config: OrlojConfig) -> None:
        if config.ranking not in RANKINGS:
            raise InvariantError(f"ranking {config.ranking!r} is none of {sorted(RANKINGS)}")
        self._queues = [_Queue(spec, config) for spec in config.queues]
        self._slots = Slots(config.slots, ahead=False)
        self._running: dict[int, tuple[int, tuple[Request, ...]]] = {}
        self._batches = 0

    def handle(self, event: Event, now: Ns) -> list[Command]:
        """Take `event` in at time `now` and say what to do."""
        out: list[Command] = []
        if isinstance(event, Arrived):
            for request in event.requests:
                self._queues[event.queue].add(request)
        elif isinstance(event, Finished):
            self._slots.finish(event.slot, event.batch, event.began + event.elapsed)
            number, requests = self._running.pop(event.batch)
            for request, work in zip(requests, event.works, strict=False):
                self._queues[number].learner.observe(request.group, work)
        elif isinstance(event, Cancelled):
            self._cancel(event, out)
        elif not isinstance(event, Tick):
            raise TypeError(f"not an event that this batcher takes: {event!r}")
        while self._slots.idle and self._fill(now, out):
            pass
        return out

    def next_wakeup(self) -> Ns | None:
        """Only events matter."""
        return None

    def _cancel(self, event: Cancelled, out: list[Command]) -> None:
        queue = self._queues[event.queue]
        for number, request in queue.requests.items():
            if request.id == event.request.id:
                queue.remove(number)
                out.append(Drop(event.queue, request, Why.CANCELLED))
                return

    def _fill(self, now: int, out: list[Command]) -> bool:
        """Give the lowest idle slot the best batch of all queues; whether there was one."""
        choices: list[tuple[float, int, _Size]] = []
        for number, queue in enumerate(self._queues):
            queue.refresh()
            out.extend(Drop(QueueId(number), r, Why.TOO_LATE) for r in queue.purge(now))
            rank = queue.choose(now)
            if rank is not None:
                alone = len(self._queues) == 1
                choices.append((0.0 if alone else -queue.gain(rank, now), number, rank))
        if not choices:
            return False
        _, number, rank = min(choices, key=lambda choice: choice[:2])
        self._send(number, rank, now, out)
        return True

    def _send(self, number: int, rank: _Size, now: int, out: list[Command]) -> None:
        requests = self._queues[number].take(rank, now)
        slot = self._slots.pick(now, now)
        self._batches += 1
        self._slots.assign(slot, self._batches, now + rank.length, rank.length)
        self._running[self._batches] = (number, requests)
        first = min(request.deadline for request in requests)
        out.append(
            Batch(
                BatchId(self._batches),
                QueueId(number),
                SlotId(slot),
                requests,
                Ns(now),
                Ns(first - rank.length),
                rank.length,
            )
        )
