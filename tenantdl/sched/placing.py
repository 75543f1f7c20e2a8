"""How requests get cores: the moves that all policies are made of.

`place` starts work on free cores; `take_over` says what a busy lane should do next, at the end of
its present launch or, if something is more urgent, at the end of its present block. A policy brings
the order of requests and `want`: how many cores, which variant, up to which segment.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from typing import NamedTuple

from tenantdl.sched.book import Book
from tenantdl.sched.queue import Rank, RankFunction
from tenantdl.sched.request import Request, State
from tenantdl.sched.state import Lane
from tenantdl.units import Ns

# Orders that may be under way to one lane before it reports: superseding is cheap, not free.
PENDING_MAX = 8


class Want(NamedTuple):
    """What a request should be given: `cores` (at the `least` so many, else it had better wait),
    a variant, and where the blocks of the launch end."""

    cores: int
    ends: tuple[int, ...]
    variant: int = 0
    least: int = 1


class Choice(NamedTuple):
    """Run `request` from segment `begin` on `lane` and the cores of `mask`, at the next end of a
    block there (`preempt`), or after the launch that runs now. `wanted`: cores, had they been
    free."""

    request: Request
    lane: Lane
    mask: int
    variant: int
    begin: int
    ends: tuple[int, ...]
    wanted: int
    preempt: bool = True


# What a policy decides at a time, in order; each choice takes effect before the next is asked for.
Decide = Callable[[Ns], Iterator[Choice]]
# (request, the segment it would go on from, cores it could get) → None: not now.
WantFunction = Callable[[Request, int, int], Want | None]


def urgency(request: Request) -> Rank:
    """Earliest deadline first within a priority; hopeless requests after all others."""
    doomed = request.doomed is not None
    return (doomed, request.late, request.priority, request.deadline, request.seq)


def arrival(request: Request) -> Rank:
    """First come, first served."""
    return (request.seq,)


def candidates(book: Book) -> list[Request]:
    """Who could be started now: the first of every queue that can get an arena, and the parked."""
    heads = [tenant.queue.head for tenant in book.waiting.values()]
    return [head for head in heads if head and book.has_arena(head)] + list(book.parked.values())


def place(
    book: Book,
    rank: RankFunction,
    want: WantFunction,
    holds: Callable[[Request], bool] | None = None,
    claim: Rank | None = None,
) -> Iterator[Choice]:
    """Start candidates on free cores, best rank first. `holds`: whether those behind have to wait
    when one does not get what it wants."""
    if not book.free:
        return
    heap = [(rank(request), request) for request in candidates(book)]
    heapq.heapify(heap)
    while heap and book.free:
        own, request = heapq.heappop(heap)
        if claim is not None and claim < own:
            return
        if request.state not in (State.WAITING, State.PARKED) or not book.has_arena(request):
            continue
        waited = request.state is State.WAITING
        wanted = want(request, request.progress, book.cores.size(book.free))
        choice = on_free_cores(book, request, wanted) if wanted else None
        if choice is not None:
            yield choice
            head = book.tenants[request.tenant].queue.head
            if waited and head and book.has_arena(head):
                heapq.heappush(heap, (rank(head), head))
        elif holds and holds(request):
            return


def on_free_cores(
    book: Book, request: Request, want: Want, within: int | None = None
) -> Choice | None:
    """`want` out of the cores that are free (and in the mask `within`): near those that the request
    had, and with fewer cores than wanted where there are at least its `least`."""
    free = book.free if within is None else book.free & within
    count = min(want.cores, book.cores.size(free))
    if count < max(1, want.least):
        return None
    mask = book.cores.pick(free, count, near=request.group)
    last = book.lanes[request.lane] if request.lane is not None else None
    low = mask & -mask
    lane = last if last and last.bit & mask else book.by_bit[low.bit_length() - 1]
    return Choice(request, lane, mask, want.variant, request.progress, want.ends, want.cores)


def take_over(
    book: Book,
    rank: RankFunction,
    want: WantFunction,
    *,
    preempts: bool,
    claim: Rank | None = None,
) -> Iterator[Choice]:
    """What busy lanes should do next, the least urgent lane first.

    What follows a running launch is said when its last block has begun, not earlier, so that
    another lane that falls idle meanwhile finds the work still free.
    """
    if not book.busy or not (preempts or book.config.ahead):
        return
    ranked = sorted(candidates(book), key=rank)
    if not ranked and not book.config.ahead:
        return
    for lane in _by_urgency(book, rank):
        if len(lane.pending) >= PENDING_MAX or not lane.ready:
            continue
        candidate = _best_for(lane, ranked)
        choice = _rival(book, lane, candidate, rank, want) if candidate and preempts else None
        if choice is None and book.config.ahead:
            choice = _next(book, lane, candidate, rank, want, claim)
        if choice is not None:
            yield choice
            ranked = sorted(candidates(book), key=rank)


def _by_urgency(book: Book, rank: RankFunction) -> list[Lane]:
    """Lanes that have an order only, then those that run, the least urgent first."""
    running = [(rank(r), lane) for lane in book.busy.values() if (r := book.running(lane))]
    running.sort(key=lambda pair: pair[0], reverse=True)
    ordered = [lane for lane in book.busy.values() if lane.running is None]
    return ordered + [lane for _, lane in running]


def _best_for(lane: Lane, ranked: list[Request]) -> Request | None:
    """The best of `ranked` for this lane. Work parked on another lane comes after fresh work of its
    class: its activations would have to move to this core's caches."""
    if not ranked:
        return None
    for request in ranked:
        if request.late != ranked[0].late:
            break
        if request.arena is None or request.lane == lane.id:
            return request
    return ranked[0]


def _rival(
    book: Book, lane: Lane, candidate: Request, rank: RankFunction, want: WantFunction
) -> Choice | None:
    """`candidate` takes the lane if it is more urgent than all the lane has, or than the order that
    waits there."""
    running = book.running(lane)
    rivals = [running] if running else []
    if lane.pending:
        rivals.append(book.requests[lane.pending[-1].request])
    own = rank(candidate)
    if all(own < rank(rival) for rival in rivals):
        return _on_lane(book, lane, candidate, candidate.progress, want, preempt=True)
    if lane.pending and running and own < rank(rivals[-1]):
        return _on_lane(book, lane, candidate, candidate.progress, want, preempt=False)
    return None


def claimed(book: Book, rank: RankFunction) -> Rank | None:
    """The rank of the most urgent request that runs on fewer cores than it wants, and may still be
    in time: what is less urgent leaves cores to it."""
    found = None
    for lane in book.busy.values():
        launch = lane.pending[-1] if lane.pending else lane.running
        if launch is None or len(launch.cores) >= launch.wanted:
            continue
        request = book.requests[launch.request]
        if not request.late and not request.doomed and (found is None or rank(request) < found):
            found = rank(request)
    return found


def _next(
    book: Book,
    lane: Lane,
    candidate: Request | None,
    rank: RankFunction,
    want: WantFunction,
    claim: Rank | None,
) -> Choice | None:
    launch, running = lane.running, book.running(lane)
    if launch is None or running is None or lane.pending or not book.near_end(lane):
        return None
    goes_on = launch.end < running.costs.count and not running.doomed
    first = min([rank(r) for r in (running if goes_on else None, candidate) if r], default=None)
    if claim is not None and first is not None and claim < first:
        return None
    if goes_on and (candidate is None or rank(running) < rank(candidate)):
        return _on_lane(book, lane, running, launch.end, want, preempt=False)
    if candidate is None:
        return None
    return _on_lane(book, lane, candidate, candidate.progress, want, preempt=False)


def _on_lane(
    book: Book, lane: Lane, request: Request, begin: int, want: WantFunction, *, preempt: bool
) -> Choice | None:
    """`request` on cores that the lane holds already, and on free ones if these are too few."""
    available = book.cores.size(lane.held | book.free)
    wanted = want(request, begin, available)
    if wanted is None or available < wanted.least:
        return None
    mask = book.cores.trim(lane.held, wanted.cores, keep=lane.bit)
    missing = min(wanted.cores, available) - book.cores.size(mask)
    if missing > 0:
        mask |= book.cores.pick(book.free, missing, near=mask)
    return Choice(
        request, lane, mask, wanted.variant, begin, wanted.ends, wanted.cores, preempt=preempt
    )
