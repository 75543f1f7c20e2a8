"""When a candidate batch starts and whom it leaves behind: functions by name (Symphony §3).

deferred          start at frontrun, drop for the window: the paper's
latest            start at the last moment that keeps the deadline
eager             start at once, drop only what could not even run alone
eager-window      start at once, drop for the window
target-batch      start when the target size is there, at frontrun at the latest
timeout(MS)       start when the oldest request has waited so long, or the batch cannot grow
fcfs              start at once, drop nothing
edf-mean, edf-p99 eager, where one number stands for the run time of all of a model's requests
auto              eager on few slots; on many, deferred where the queue keeps several busy, else
                  eager-window, and batches are as large as serves most requests a second, no larger
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable
from typing import NamedTuple

from tenantdl.errors import UserError
from tenantdl.sched.batching.messages import Drop, QueueId, Why
from tenantdl.sched.batching.queue import Queue
from tenantdl.units import Ns, from_ms

# Staggering needs slots to stagger over: l(b)(1 + 1/n) against 2·l(b). Bench: docs/batching.md.
# Between the two bounds a queue stays as it is.
DEFER_ABOVE, EAGER_BELOW = 1.5, 1.25
# With fewer slots, who waits or takes a part of its queue only gives the other queues a large part
# of the machine, for as long as their longest batch takes.
MANY_SLOTS = 4

# (queue, size, now) → when the batch should start; what is past means now.
Start = Callable[[Queue, int, int], int]
# (queue number, queue, now, free) → size of the batch, after dropping from the queue's head.
Form = Callable[[int, Queue, int, int, list[Drop]], int]


class Policy(NamedTuple):
    """`start`: when a candidate may begin; `form`: how large it is, and who is dropped for it."""

    start: Start
    form: Form


def immediate(queue: Queue, size: int, now: int) -> int:
    """At once."""
    return now


def frontrun(queue: Queue, size: int, now: int) -> int:
    """Any later, and one more request could not join and still be in time. At once when full."""
    if size >= queue.latency.size_max:
        return now
    return queue.deadline - queue.jitter - queue.latency.times[size + 1] - queue.data


def latest(queue: Queue, size: int, now: int) -> int:
    """The last moment that keeps the deadline."""
    return queue.deadline - queue.jitter - queue.latency.times[size]


def target(queue: Queue, size: int, now: int) -> int:
    """At once from the target size on, else at frontrun."""
    return now if size >= queue.target else frontrun(queue, size, now)


def timeout(delay: Ns) -> Start:
    """When the head has waited for `delay`; sooner if one more could not join by then."""

    def start(queue: Queue, size: int, now: int) -> int:
        due = queue.requests[queue.head].arrived + delay
        return min(due, frontrun(queue, size, now))

    return start


def adaptive(queue: Queue, size: int, now: int) -> int:
    """Frontrun for queues that are known to keep several slots busy, at once for others, and for
    batches that gain nothing by more requests."""
    bound = EAGER_BELOW if queue.defers else DEFER_ABOVE
    queue.defers = queue.meter.known and queue.slots > bound and queue.among >= MANY_SLOTS
    return frontrun(queue, size, now) if queue.defers and size < queue.useful else now


def window_drop(number: int, queue: Queue, now: int, free: int, drops: list[Drop]) -> int:
    """Drop heads that would keep those behind them from a batch of the target size."""
    return _window(number, queue, now, free, drops, queue.latency.size_max)


def useful_window(number: int, queue: Queue, now: int, free: int, drops: list[Drop]) -> int:
    """As `window_drop`, but no larger than pays: who joins a larger batch waits for all of it. On
    few slots as `timeout_drop`."""
    if queue.among < MANY_SLOTS:
        return timeout_drop(number, queue, now, free, drops)
    return _window(number, queue, now, free, drops, queue.useful)


def _window(
    number: int, queue: Queue, now: int, free: int, drops: list[Drop], size_max: int
) -> int:
    """The longest tail that is in time as one batch says how large a batch can be; heads that
    cannot finish in a batch of min(target, tail) go. Then the batch grows as far as its deadline
    allows."""
    waiting = len(queue)
    most = min(waiting, size_max)
    if waiting == 0 or queue.holds(queue.deadlines[queue.head], most, now, free):
        return most
    end = len(queue.deadlines)
    low, high = 0, min(queue.target, most)
    if queue.holds(queue.deadlines[end - high], high, now, free):
        low = high
    while low < high:
        size = (low + high + 1) >> 1
        if queue.holds(queue.deadlines[end - size], size, now, free):
            low = size
        else:
            high = size - 1
    return min(_drop_heads(number, queue, max(low, 1), now, free, drops), size_max)


def timeout_drop(number: int, queue: Queue, now: int, free: int, drops: list[Drop]) -> int:
    """Drop only heads that cannot finish even alone."""
    most = min(len(queue), queue.latency.size_max)
    if most == 0 or queue.holds(queue.deadlines[queue.head], most, now, free):
        return most
    return _drop_heads(number, queue, 1, now, free, drops)


def no_drop(number: int, queue: Queue, now: int, free: int, drops: list[Drop]) -> int:
    """Drop nothing; late heads take as many along as the target says."""
    waiting = len(queue)
    if waiting == 0:
        return 0
    fit = queue.fit(queue.deadlines[queue.head], now, free)
    return min(waiting, fit or queue.target)


def _drop_heads(
    number: int, queue: Queue, size: int, now: int, free: int, drops: list[Drop]
) -> int:
    """Drop every head that a batch of `size` would keep waiting too long; how many of the rest fit
    one batch."""
    deadlines, head = queue.deadlines, queue.head
    count = bisect_left(deadlines, queue.earliest_end(size, now, free), head) - head
    if count:
        alone = queue.earliest_end(1, now, free) if size > 1 else deadlines[head + count - 1] + 1
        for request in queue.pop(count):
            late = request.deadline - queue.network.response < alone
            why = Why.TOO_LATE if late else Why.FOR_THE_BATCH
            drops.append(Drop(QueueId(number), request, why))
    if len(queue) == 0:
        return 0
    return min(queue.fit(queue.deadlines[queue.head], now, free), len(queue))


POLICIES: dict[str, Policy] = {
    "deferred": Policy(frontrun, window_drop),
    "latest": Policy(latest, window_drop),
    "eager": Policy(immediate, timeout_drop),
    "eager-window": Policy(immediate, window_drop),
    "target-batch": Policy(target, window_drop),
    "fcfs": Policy(immediate, no_drop),
    "edf-mean": Policy(immediate, timeout_drop),
    "edf-p99": Policy(immediate, timeout_drop),
    "auto": Policy(adaptive, useful_window),
}


def policy(name: str) -> Policy:
    """The policy of that name; `timeout(2.5)` waits for 2.5 ms. Raises UserError."""
    if name in POLICIES:
        return POLICIES[name]
    waits = re.fullmatch(r"timeout\((\d{1,6}(?:\.\d{1,6})?)\)", name)
    if waits is None:
        known = ", ".join([*POLICIES, "timeout(MS)"])
        raise UserError(f"unknown batching policy {name!r}: choose from {known}")
    return Policy(timeout(from_ms(float(waits[1]))), timeout_drop)
