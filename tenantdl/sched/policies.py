"""Scheduling policies: what a lane should do next. Functions in a dict, no classes to derive from.

A policy is asked for one lane at a time, whenever something has happened, and answers with what
the lane should take up beside what it already runs, or None to leave things as they are.

  edf    block-level earliest deadline first: an urgent request takes the lane at the next end of a
         block; requests that cannot be in time any more go last (worth 1.3x of load at 95 %).
  fcfs   whole requests in the order of arrival: the baseline.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from tenantdl.sched.book import Book, Lane, Rank, RankFunction
from tenantdl.sched.request import Request
from tenantdl.units import Ns

# Orders that may be under way to one lane before it reports: superseding is cheap, not free.
PENDING_MAX = 8


class Choice(NamedTuple):
    """Run `request` from segment `begin`: at the next end of a block (`preempt`), or after the
    launch that runs now."""

    request: Request
    begin: int
    preempt: bool


class Policy(NamedTuple):
    """`rank` orders requests, first to be served first; `prepare` is called before decisions;
    `choose` picks for one lane."""

    rank: RankFunction
    prepare: Callable[[Book, Ns], None]
    choose: Callable[[Book, Lane, Ns], Choice | None]


def urgency(request: Request) -> Rank:
    """Earliest deadline first within a priority; hopeless requests after all others."""
    doomed = request.doomed is not None
    return (doomed, request.late, request.priority, request.deadline, request.seq)


def arrival(request: Request) -> Rank:
    """First come, first served."""
    return (request.seq,)


def edf(book: Book, lane: Lane, now: Ns) -> Choice | None:
    """Block-level earliest deadline first."""
    candidate = _candidate(book, lane)
    running = book.running(lane)
    rivals = [running] if running else []
    if lane.pending:
        rivals.append(book.requests[lane.pending[-1].request])
    if candidate and all(urgency(candidate) < urgency(rival) for rival in rivals):
        # More urgent than all the lane has: at once. Also what an idle lane gets.
        return Choice(candidate, candidate.progress, preempt=True)
    if lane.pending and running and candidate and urgency(candidate) < urgency(rivals[-1]):
        return Choice(candidate, candidate.progress, preempt=False)
    return _next(book, lane, candidate)


def fcfs(book: Book, lane: Lane, now: Ns) -> Choice | None:
    """Whole requests in the order of arrival."""
    candidate = _candidate(book, lane)
    if candidate and lane.running is None and not lane.pending:
        return Choice(candidate, candidate.progress, preempt=True)
    return _next(book, lane, candidate)


def _candidate(book: Book, lane: Lane) -> Request | None:
    """The best request that this lane could take up.

    Work parked on another lane comes after fresh work of its class: its activations would have to
    move to this core's caches.
    """
    heads = [head for tenant in book.tenants.values() if (head := tenant.queue.head)]
    able = [request for request in heads if book.has_arena(request)]
    able += book.parked.values()
    return min(
        able,
        key=lambda r: (r.late, r.arena is not None and r.lane != lane.id, book.rank(r)),
        default=None,
    )


def _next(book: Book, lane: Lane, candidate: Request | None) -> Choice | None:
    """What follows the running launch: said when its last block has begun, not earlier, so that
    another lane that falls idle meanwhile finds the work still free."""
    launch, running = lane.running, book.running(lane)
    if launch is None or running is None or lane.pending or not book.near_end(lane):
        return None
    goes_on = launch.end < book.costs(running).count and not running.doomed
    if goes_on and (candidate is None or book.rank(running) < book.rank(candidate)):
        return Choice(running, launch.end, preempt=False)
    return Choice(candidate, candidate.progress, preempt=False) if candidate else None


POLICIES: dict[str, Policy] = {
    "edf": Policy(urgency, Book.mark_late, edf),
    "fcfs": Policy(arrival, lambda book, now: None, fcfs),
}
