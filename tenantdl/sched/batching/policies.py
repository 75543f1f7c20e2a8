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
                  (on few slots too, if the model's requests differ in run time)
"""

from __future__ import annotations

import re
from typing import Final

from tenantdl.errors import UserError
from tenantdl.sched.batching.messages import Command, Drop, QueueId, Why
from tenantdl.sched.batching.queue import Queue
from tenantdl.units import from_ms

# Staggering needs slots to stagger over: l(b)(1 + 1/n) against 2·l(b). Bench: docs/batching.md.
# Between the two bounds a queue stays as it is.
DEFER_ABOVE: Final = 1.5
EAGER_BELOW: Final = 1.25
# With fewer slots, who waits or takes a part of its queue only gives the other queues a large part
# of the machine, for as long as their longest batch takes.
MANY_SLOTS: Final = 4
# These go by a deadline or by arrival and know nothing of other queues: baselines.
PLAIN: Final = ("eager", "eager-window", "fcfs", "timeout", "edf-mean", "edf-p99")
# When a policy starts a batch, and whom it drops.
AT_ONCE: Final = 0
FRONTRUN: Final = 1
LATEST: Final = 2
TARGET: Final = 3
TIMEOUT: Final = 4
ADAPTIVE: Final = 5
WINDOW: Final = 0
USEFUL: Final = 1
ALONE: Final = 2
NOTHING: Final = 3


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


def timeout(queue: Queue, size: int, now: int, delay: int) -> int:
    """When the head has waited for `delay`; sooner if one more could not join by then."""
    due: int = queue.requests[queue.head].arrived + delay
    front = frontrun(queue, size, now)
    return due if due < front else front


def adaptive(queue: Queue, size: int, now: int) -> int:
    """Frontrun for queues that are known to keep several slots busy, at once for others, and for
    batches that gain nothing by more requests."""
    bound = EAGER_BELOW if queue.defers else DEFER_ABOVE
    queue.defers = queue.meter.known and queue.slots > bound and queue.among >= MANY_SLOTS
    return frontrun(queue, size, now) if queue.defers and size < queue.useful else now


def window_drop(number: int, queue: Queue, now: int, free: int, out: list[Command]) -> int:
    """Drop heads that would keep those behind them from a batch of the target size. As all of its
    kind: the size of a batch on a slot that is free at `free`, after dropping from the head."""
    return _window(number, queue, now, free, out, queue.latency.size_max)


def useful_window(number: int, queue: Queue, now: int, free: int, out: list[Command]) -> int:
    """As `window_drop`, but no larger than pays: who joins a larger batch waits for all of it. On
    few slots as `timeout_drop`, no larger than pays where others of the model take less time."""
    if queue.among < MANY_SLOTS:
        size = timeout_drop(number, queue, now, free, out)
        return min(size, queue.useful) if queue.varied else size
    return _window(number, queue, now, free, out, queue.useful)


def _window(
    number: int, queue: Queue, now: int, free: int, out: list[Command], size_max: int
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
    # It will hardly be another size than it was.
    guess, step = queue.size, 1
    while low < high:
        size = guess if low < guess <= high else (low + high + 1) >> 1
        if queue.holds(queue.deadlines[end - size], size, now, free):
            low = size
            guess = size + step
        else:
            high = size - 1
            guess = size - step
        step *= 4
    return min(_drop_heads(number, queue, max(low, 1), now, free, out), size_max)


def timeout_drop(number: int, queue: Queue, now: int, free: int, out: list[Command]) -> int:
    """Drop only heads that cannot finish even alone."""
    most = min(len(queue), queue.latency.size_max)
    if most == 0 or queue.holds(queue.deadlines[queue.head], most, now, free):
        return most
    return _drop_heads(number, queue, 1, now, free, out)


def no_drop(queue: Queue, now: int, free: int) -> int:
    """Drop nothing; late heads take as many along as the target says."""
    waiting = len(queue)
    if waiting == 0:
        return 0
    fit = queue.fit(queue.deadlines[queue.head], now, free)
    return min(waiting, fit or queue.target)


def _drop_heads(
    number: int, queue: Queue, size: int, now: int, free: int, out: list[Command]
) -> int:
    """Drop every head that a batch of `size` would keep waiting too long; how many of the rest fit
    one batch."""
    end = queue.earliest_end(size, now, free)
    alone = queue.earliest_end(1, now, free) if size > 1 else end
    deadlines, first = queue.deadlines, queue.head
    place, behind = first, len(deadlines)
    while place < behind and deadlines[place] < end:
        why = Why.TOO_LATE if deadlines[place] < alone else Why.FOR_THE_BATCH
        out.append(Drop(QueueId(number), queue.requests[place], why))
        place += 1
    queue.skip(place - first)
    if len(queue) == 0:
        return 0
    return min(queue.fit(queue.deadlines[queue.head], now, free), len(queue))


class Policy:
    """`start`: when a candidate may begin; `form`: how large it is, and who is dropped for it. By
    number, not as function values: a compiled call of those boxes every argument."""

    def __init__(self, starts: int, drops: int, delay: int = 0) -> None:
        """`starts`, `drops`: of the constants above; `delay`: ns, of TIMEOUT."""
        self._starts: int = starts
        self._drops: int = drops
        self._delay: int = delay

    def start(self, queue: Queue, size: int, now: int) -> int:
        """When a batch of `size` should start; what is past means now."""
        starts = self._starts
        if starts == FRONTRUN:
            return frontrun(queue, size, now)
        if starts == ADAPTIVE:
            return adaptive(queue, size, now)
        if starts == LATEST:
            return latest(queue, size, now)
        if starts == TARGET:
            return target(queue, size, now)
        if starts == TIMEOUT:
            return timeout(queue, size, now, self._delay)
        return now

    def form(self, number: int, queue: Queue, now: int, free: int, out: list[Command]) -> int:
        """The size of a batch of queue `number` on a slot free at `free`; drops go to `out`."""
        drops = self._drops
        if drops == WINDOW:
            return window_drop(number, queue, now, free, out)
        if drops == USEFUL:
            return useful_window(number, queue, now, free, out)
        if drops == ALONE:
            return timeout_drop(number, queue, now, free, out)
        return no_drop(queue, now, free)


POLICIES: dict[str, Policy] = {
    "deferred": Policy(FRONTRUN, WINDOW),
    "latest": Policy(LATEST, WINDOW),
    "eager": Policy(AT_ONCE, ALONE),
    "eager-window": Policy(AT_ONCE, WINDOW),
    "target-batch": Policy(TARGET, WINDOW),
    "fcfs": Policy(AT_ONCE, NOTHING),
    "edf-mean": Policy(AT_ONCE, ALONE),
    "edf-p99": Policy(AT_ONCE, ALONE),
    "auto": Policy(ADAPTIVE, USEFUL),
}


def policy(name: str) -> Policy:
    """The policy of that name; `timeout(2.5)` waits for 2.5 ms. Raises UserError."""
    if name in POLICIES:
        return POLICIES[name]
    waits = re.fullmatch(r"timeout\((\d{1,6}(?:\.\d{1,6})?)\)", name)
    if waits is None:
        known = ", ".join([*POLICIES, "timeout(MS)"])
        raise UserError(f"unknown batching policy {name!r}: choose from {known}")
    return Policy(TIMEOUT, ALONE, from_ms(float(waits[1])))
