"""Which of several ready candidates a free slot takes (Symphony §4). Total orders.

invalid_after   the one that has to begin first (default)
deadline        the one with the earliest deadline
slack           the one whose window, from its start to invalid-after, is the narrowest
efficiency      the one that serves most requests a second

`ScoreOrder` is Orloj's; it needs distributions of run times.
"""

from __future__ import annotations

from collections.abc import Callable
from math import log2
from typing import Protocol

from tenantdl.sched.batching.queue import Queue
from tenantdl.sched.batching.times import Times
from tenantdl.sched.batching.tournament import NEVER, Tournament


class Order(Protocol):
    """Ready candidates, named by their queue's number."""

    def add(self, number: int, queue: Queue) -> None:
        """The candidate of `queue` is ready, or has changed."""

    def discard(self, number: int) -> None:
        """Queue `number` has no ready candidate any more."""

    def best(self, now: int) -> int:
        """The number of the queue to serve first; −1 if none is ready."""


def invalid_after(queue: Queue) -> int:
    """The one that has to begin first."""
    return queue.invalid_after


def deadline(queue: Queue) -> int:
    """The earliest deadline."""
    return queue.deadline


def slack(queue: Queue) -> int:
    """The narrowest window."""
    return queue.invalid_after - queue.start


def efficiency(queue: Queue) -> int:
    """Most requests a second."""
    return queue.latency.times[queue.size] // queue.size


Key = Callable[[Queue], int]
KEYS: dict[str, Key] = {
    "invalid_after": invalid_after,
    "deadline": deadline,
    "slack": slack,
    "efficiency": efficiency,
}


class KeyOrder:
    """Candidates by a key that is fixed while they are ready: O(log n)."""

    def __init__(self, key: Key, count: int) -> None:
        self._key = key
        self._tournament = Tournament(count)

    def add(self, number: int, queue: Queue) -> None:
        """The candidate of `queue` is ready, or has changed."""
        self._tournament.set(number, self._key(queue))

    def discard(self, number: int) -> None:
        """Queue `number` has no ready candidate any more."""
        self._tournament.set(number, NEVER)

    def best(self, now: int) -> int:
        """The queue with the smallest key; −1 if none is ready."""
        return self._tournament.best if self._tournament.key < NEVER else -1


class ScoreOrder:
    """Orloj's score as the priority: the candidate that loses most by waiting, for the slot time it
    takes. As long as no ready candidate's run time varies, the one that has to begin first.

    Who is passed over waits for about as long as requests of its queue have waited lately. That is
    little on an idle machine, so that what is urgent goes first; under overload it is more than
    deadlines leave, so that what takes least time goes first and most are in time.
    """

    def __init__(self, times: Callable[[int], Times], waits: Callable[[int], float]) -> None:
        """`times`: those of a queue, by its number; `waits`: ns that requests of a queue wait."""
        self._times = times
        self._waits = waits
        self._ready: dict[int, Queue] = {}

    def add(self, number: int, queue: Queue) -> None:
        """The candidate of `queue` is ready, or has changed."""
        self._ready[number] = queue

    def discard(self, number: int) -> None:
        """Queue `number` has no ready candidate any more."""
        self._ready.pop(number, None)

    def best(self, now: int) -> int:
        """The queue with the highest score; −1 if none is ready."""
        if len(self._ready) < 2:
            return next(iter(self._ready), -1)
        if not any(self._times(number).dynamic for number in self._ready):
            return min(self._ready, key=lambda n: (self._ready[n].invalid_after, n))

        def rank(number: int) -> tuple[float, int, int]:
            queue = self._ready[number]
            # In whole powers of two, so that tables can be kept.
            delay = 2.0 ** round(log2(max(self._waits(number), 1.0)))
            table = self._times(number).score(queue.size, delay)
            return -table.score(queue.deadline, now), queue.invalid_after, number

        return min(self._ready, key=rank)
