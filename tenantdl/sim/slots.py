"""Batches on slots in virtual time: the loop around a pure batcher, with declared run times.

Seeded by its inputs alone and deterministic. At one instant, slots report first, then requests
arrive, then the batcher's wake-up is due. Times are ns from the start.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import NamedTuple, Protocol

import numpy as np

from tenantdl.errors import InvariantError
from tenantdl.ids import RequestId
from tenantdl.load.arrivals import Times
from tenantdl.sched.batching.messages import (
    Arrived,
    Batch,
    Command,
    Drop,
    Event,
    Finished,
    QueueId,
    Request,
    Tick,
)
from tenantdl.units import SECOND, Ns

_NEVER = 1 << 62


class Batching(Protocol):
    """What is simulated: `Batcher`, and everything else that batches."""

    def handle(self, event: Event, now: Ns) -> list[Command]:
        """Take `event` in and say what to do."""

    def next_wakeup(self) -> Ns | None:
        """When a Tick is due."""


class Stream(NamedTuple):
    """Requests of queue `queue`, due at `times`, each to be answered within `slo`. `works[i]`: what
    the i-th takes alone; `groups[i]`: its group; empty where all are alike."""

    queue: int
    times: Times
    slo: Ns
    works: Sequence[int] = ()
    groups: Sequence[int] = ()


class Ran(NamedTuple):
    """A batch took `elapsed`; its requests alone would have taken `works` (empty: nobody knows)."""

    elapsed: int
    works: tuple[Ns, ...] = ()


# (batch, works of its requests) → how long it runs.
Runtime = Callable[[Batch, tuple[int, ...]], Ran]


def as_planned(batch: Batch, works: tuple[int, ...]) -> Ran:
    """Batches run exactly as long as they were planned for."""
    return Ran(batch.planned)


@dataclass
class Outcome:
    """Of the requests due from the warm-up on: `good` in time, `late`, `dropped`; `good_of` and
    `all_of` a queue. `busy[s]`: share of the time that slot s worked. `batches`: how many there
    were, `served` the requests in them. `duration_s`: counted time."""

    queues: int
    slots: int
    duration_s: float
    good: int = 0
    late: int = 0
    dropped: int = 0
    batches: int = 0
    served: int = 0
    good_of: list[int] = field(init=False)
    all_of: list[int] = field(init=False)
    busy: list[float] = field(init=False)

    def __post_init__(self) -> None:
        self.good_of, self.all_of = [0] * self.queues, [0] * self.queues
        self.busy = [0.0] * self.slots

    @property
    def bad_share(self) -> float:
        """Share of requests late or dropped."""
        total = self.good + self.late + self.dropped
        return (self.late + self.dropped) / total if total else 0.0

    @property
    def batch_mean(self) -> float:
        """Mean size of a batch."""
        return self.served / self.batches if self.batches else 0.0


class _Run:
    """State of one simulation."""

    def __init__(
        self, batching: Batching, outcome: Outcome, runtime: Runtime, response: int, since: int
    ) -> None:
        self.batching = batching
        self.outcome = outcome
        self.runtime = runtime
        self.response = response
        self.since = since
        self.until = since + round(outcome.duration_s * SECOND)
        self.works: dict[int, int] = {}
        self.free_at = [0] * outcome.slots
        self.finishing: list[tuple[int, int, Finished, Batch]] = []

    def obey(self, commands: list[Command]) -> None:
        """Carry commands out."""
        for command in commands:
            if isinstance(command, Batch):
                self._run(command)
            elif command.request.arrived >= self.since:
                self.works.pop(command.request.id, None)
                self._count(command)

    def _count(self, drop: Drop) -> None:
        self.outcome.dropped += 1
        self.outcome.all_of[drop.queue] += 1

    def _run(self, batch: Batch) -> None:
        works = self.works
        own = tuple(works.pop(r.id) for r in batch.requests) if works else ()
        ran = self.runtime(batch, own)
        began = max(batch.earliest, self.free_at[batch.slot])
        end = began + ran.elapsed
        self.free_at[batch.slot] = end
        report = Finished(batch.slot, batch.batch, Ns(began), Ns(ran.elapsed), ran.works)
        heappush(self.finishing, (end, batch.batch, report, batch))
        counted = min(end, self.until) - max(began, self.since)
        if counted > 0:
            self.outcome.busy[batch.slot] += counted / (self.until - self.since)

    def finish(self) -> tuple[int, Finished]:
        """The next report, and what came of the batch's requests."""
        end, _, report, batch = heappop(self.finishing)
        outcome, answered = self.outcome, end + self.response
        counted = [r for r in batch.requests if r.arrived >= self.since]
        good = sum(answered <= request.deadline for request in counted)
        outcome.good += good
        outcome.late += len(counted) - good
        outcome.good_of[batch.queue] += good
        outcome.all_of[batch.queue] += len(counted)
        if counted:
            outcome.batches += 1
            outcome.served += len(batch.requests)
        return end, report


def simulate(
    batching: Batching,
    streams: Sequence[Stream],
    slots: int,
    *,
    duration_s: float,
    warm_up_s: float = 0.0,
    runtime: Runtime = as_planned,
    response: int = 0,
) -> Outcome:
    """Drive `streams` through `batching` until every request is answered or dropped.

    Requests due before `warm_up_s` are served but not counted. Raises InvariantError when the
    batcher forgets a request.
    """
    queues = 1 + max(stream.queue for stream in streams)
    outcome = Outcome(queues, slots, duration_s - warm_up_s)
    since = round(warm_up_s * SECOND)
    run = _Run(batching, outcome, runtime, response, since)
    due, counted = _merged(streams, run.works, since)
    handle, next_wakeup = batching.handle, batching.next_wakeup
    place, wakeup = 0, next_wakeup()
    while True:
        tick = _NEVER if wakeup is None else wakeup
        arrival = due[place][0] if place < len(due) else _NEVER
        finish = run.finishing[0][0] if run.finishing else _NEVER
        if finish <= arrival and finish <= tick:
            if finish == _NEVER:
                break
            now, report = run.finish()
            run.obey(handle(report, Ns(now)))
        elif arrival <= tick:
            run.obey(handle(due[place][1], Ns(arrival)))
            place += 1
        else:
            run.obey(handle(Tick(), Ns(tick)))
        wakeup = next_wakeup()
    if outcome.good + outcome.late + outcome.dropped != counted:
        raise InvariantError(f"{counted} requests came, but the outcome is {outcome}")
    return outcome


def _merged(
    streams: Sequence[Stream], works: dict[int, int], since: int
) -> tuple[list[tuple[int, Arrived]], int]:
    """All arrivals in order, and how many count; `works` is filled in."""
    times = np.concatenate([stream.times for stream in streams])
    owner = np.repeat(np.arange(len(streams)), [len(stream.times) for stream in streams])
    within = np.concatenate([np.arange(len(stream.times)) for stream in streams])
    order = np.argsort(times, kind="stable")
    due = []
    rows = zip(times[order].tolist(), owner[order].tolist(), within[order].tolist(), strict=True)
    for number, (time, who, place) in enumerate(rows):
        stream = streams[who]
        group = stream.groups[place] if stream.groups else 0
        request = Request(RequestId(number), Ns(time), Ns(time + stream.slo), group)
        if stream.works:
            works[number] = stream.works[place]
        due.append((time, Arrived(QueueId(stream.queue), (request,))))
    return due, int((times >= since).sum())
