"""Planaria's and PREMA's schedulers on CPU cores.

Planaria (MICRO '20, §V): whenever a request comes or goes, cores are shared out anew among all
that are active, by what they need at the least to be in time; running ones are resized at their
next boundary. PREMA (HPCA '20, §V): one request at a time has the whole machine; waiting earns
tokens, and of those with enough of them the shortest goes first, preempting at a boundary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from tenantdl.ids import RequestId
from tenantdl.sched.book import Book
from tenantdl.sched.costs import UNDISTURBED
from tenantdl.sched.placing import Choice, Decide, Want, candidates, on_free_cores
from tenantdl.sched.request import Request
from tenantdl.units import Ns

# Added to 1/time and slack, so that nothing is divided by zero.
_LEAST = 1000
# Priorities grow with importance in the papers; here lower goes first.
_WEIGHT = 101


def planaria(book: Book, parameter: int) -> Decide:
    """Spatial sharing by minimal demand, then by priority over remaining time."""
    return _sharing(book, lambda request, cores: 0)


def veltair_ac(book: Book, parameter: int) -> Decide:
    """Planaria's sharing with VELTAIR's adaptive compilation: of each block, the version that is
    fastest at the machine's present interference level."""

    def variant(request: Request, cores: int) -> int:
        return request.costs.best_variant(cores, request.progress, book.level)

    return _sharing(book, variant)


def _sharing(book: Book, variant: Callable[[Request, int], int]) -> Decide:
    grants: dict[RequestId, int] = {}
    seen: set[RequestId] = set()

    def decide(now: Ns) -> Iterator[Choice]:
        nonlocal seen
        if not book.free:
            return
        waiting = candidates(book)
        while waiting:
            active = waiting + [r for lane in book.busy.values() if (r := book.running(lane))]
            now_active = {request.id for request in active}
            if now_active != seen:
                # Someone came or went.
                grants.clear()
                grants.update(share_out(active, book.cores_max, now, book.level))
                seen = now_active
            choice = _first_granted(book, waiting, grants, variant)
            if choice is None:
                return
            yield choice
            waiting = candidates(book)

    return decide


def _first_granted(
    book: Book,
    waiting: list[Request],
    grants: dict[RequestId, int],
    variant: Callable[[Request, int], int],
) -> Choice | None:
    waiting = [request for request in waiting if grants.get(request.id)]
    for request in sorted(waiting, key=lambda r: (-grants[r.id], r.seq)):
        cores = grants[request.id]
        which = variant(request, cores)
        given = min(cores, book.cores.size(book.free))
        ends = request.costs.at(which, max(1, given)).block_ends(request.progress, 1)
        choice = on_free_cores(book, request, Want(cores, ends, which))
        if choice is not None:
            return choice
    return None


def share_out(active: list[Request], cores: int, now: Ns, level: int) -> dict[RequestId, int]:
    """Cores for every active request (Planaria, algorithm 1): minimal demands and shares of what is
    spare if all demands fit, else minimal demands by priority over slack and demand; who cannot be
    in time any more comes last, unless that is everybody."""
    least: dict[RequestId, int] = {}
    times: dict[RequestId, int] = {}
    late: list[Request] = []
    for request in active:
        slack = (request.deadline - now) * UNDISTURBED // request.costs.slowdown(0, level)
        demand = _least_cores(request, slack)
        if demand is None:
            late.append(request)
        least[request.id] = demand or request.costs.counts[0]
        times[request.id] = request.costs.at(0, least[request.id]).remaining(request.progress)
    on_time = [request for request in active if request not in late] if late else active
    grants = dict.fromkeys(least, 0)
    if sum(least[request.id] for request in on_time) <= cores and on_time:
        for request in on_time:
            grants[request.id] = least[request.id]
        left = cores - sum(grants.values())
        weights = {r.id: _weight(r) * 10**9 // (times[r.id] + _LEAST) for r in on_time}
    elif on_time:
        left, weights = cores, {}
        ranked = sorted(on_time, key=lambda r: (-_score(r, least[r.id], now), r.seq))
        for request in ranked:
            if least[request.id] <= left:
                grants[request.id] = least[request.id]
                left -= least[request.id]
    else:
        left = cores
        weights = {r.id: _weight(r) * 10**9 // (times[r.id] + _LEAST) for r in late}
    whole = sum(weights.values())
    for request in active:
        extra = left * weights[request.id] // whole if request.id in weights and whole else 0
        if grants[request.id] + extra:
            grants[request.id] = request.costs.usable(grants[request.id] + extra)
    spare = cores - sum(grants.values())
    for request in late:
        if not grants[request.id] and spare >= least[request.id]:
            grants[request.id] = request.costs.usable(spare)
            spare -= grants[request.id]
    return grants


def _least_cores(request: Request, slack: int) -> int | None:
    costs, progress = request.costs, request.progress
    for cores in costs.counts:
        if costs.at(0, cores).remaining(progress) <= slack:
            return cores
    return None


def _weight(request: Request) -> int:
    return _WEIGHT - request.priority


def _score(request: Request, demand: int, now: Ns) -> int:
    return _weight(request) * 10**15 // ((request.deadline - now + _LEAST) * demand)


def prema(book: Book, parameter: int) -> Decide:
    """Temporal sharing with tokens: one request at a time, on the whole machine."""
    # Tokens, and when they were last brought up to date.
    tokens: dict[RequestId, int] = {}
    counted: dict[RequestId, Ns] = {}

    def decide(now: Ns) -> Iterator[Choice]:
        if book.busy or not book.free:
            return
        waiting = candidates(book)
        if not waiting:
            return
        for gone in [number for number in tokens if number not in book.requests]:
            del tokens[gone], counted[gone]
        for request in waiting:
            number, alone = request.id, max(1, request.costs.remaining(0))
            waited = now - counted.get(number, request.arrived)
            # Priority times slowdown, as waited for in units of the time it takes alone.
            tokens[number] = tokens.get(number, _weight(request) * 1000) + (
                _weight(request) * 1000 * waited // alone
            )
            counted[number] = now
        most = max(tokens[request.id] for request in waiting)
        # The threshold is the highest power of two below the most tokens (PREMA, §V-B).
        threshold = 1 << (most.bit_length() - 1)
        able = [request for request in waiting if tokens[request.id] >= threshold]
        chosen = min(able, key=lambda r: (r.costs.remaining(r.progress), r.seq))
        cores = book.cores.size(book.free)
        ends = chosen.costs.at(0, cores).block_ends(chosen.progress, 1)
        choice = on_free_cores(book, chosen, Want(cores, ends))
        if choice is not None:
            yield choice

    return decide
