"""tenantdl's own policy: cores, variant, end of block and start, chosen together.

For a request with `slack` until its deadline, every (variant v, cores c) there are costs for is
weighed by the core time that it takes, of its own and of others:

    finish(v, c) = remaining(v, c) · slowdown(v, pressure now) + resize + migration
    price(v, c)  = c · finish · (1 + exerted(v, c)/c · sensitivity of what runs now)

The cheapest choice that finishes within a safe part of the slack is taken: core time is what is
scarce, so deadlines are met with as little of it as possible. Cores that nobody waits for widen the
choice as long as that costs little more core time. Requests are served by deadline; those that
cannot be in time go last; tenants over their share go after those under it while both wait. A wide
request that is about to become late holds back cores from those behind it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from tenantdl.ids import TenantId
from tenantdl.sched.book import Book
from tenantdl.sched.costs import UNDISTURBED
from tenantdl.sched.placing import Choice, Decide, Want, place, take_over, urgency
from tenantdl.sched.queue import Rank
from tenantdl.sched.request import Request
from tenantdl.units import SECOND, Ns

# Of the slack, in 1/1000, that a prediction may fill: predictions err.
_SAFE = 960
# Nobody gets the whole machine undisturbed: who could be in time only so much faster (1/1000) than
# that is late.
_LATE = 1250
# Added core time, in 1/1000, that idle cores may be spent on to finish sooner.
_WIDEN = 400
# Times its stated load that a tenant may use before others go first. What it used lately is halved
# every second: it is that of one to two seconds.
_OVER, _SECONDS = 2, 2
# Launches on more cores than needed, or fewer, have so many times fewer blocks.
_BRIEF = 4


class Fit(NamedTuple):
    """What to give a request: `cores` and a variant; fewer cores (`narrow`) would do."""

    cores: int
    variant: int
    narrow: int


# Price (core ns), time (ns), cores.
_Option = tuple[int, int, int]


def tenantdl(book: Book, parameter: int) -> Decide:
    """See the module."""
    ahead = book.config.ahead
    blocks_max = book.config.blocks_max if ahead else 1
    over: frozenset[TenantId] = frozenset()
    rivals = 1

    def rank(request: Request) -> Rank:
        doomed, late, *rest = urgency(request)
        return (doomed, late, request.tenant in over, *rest)

    def want(request: Request, begin: int, available: int) -> Want | None:
        fit = find_fit(book, request, begin, available // rivals)
        cores = min(fit.cores, available)
        # Who has more than it needs, or less than it should, is soon asked again.
        blocks = blocks_max if cores == fit.narrow else max(1, blocks_max // _BRIEF)
        ends = request.costs.at(fit.variant, cores).block_ends(begin, blocks)
        return Want(fit.cores, ends, fit.variant, least=1 if ahead else fit.cores)

    def holds(request: Request) -> bool:
        return not request.late

    def decide(now: Ns) -> Iterator[Choice]:
        nonlocal over, rivals
        if not book.free and not ahead:
            return
        book.mark_late(now, _LATE)
        over = over_share(book)
        rivals = max(1, len(book.waiting) + len(book.parked))
        yield from place(book, rank, want, holds)
        yield from take_over(book, rank, want, preempts=ahead)

    return decide


def find_fit(book: Book, request: Request, begin: int, room: int) -> Fit:
    """The cheapest way to be in time, wider if that costs little and there is `room` for it; the
    cheapest way at all, if there is none."""
    costs = request.costs
    pressure = min(UNDISTURBED, max(book.pressure // book.cores_max, book.level))
    usable = costs.usable(max(1, room))
    sensitivity = book.sensitivity * UNDISTURBED // book.cores_max
    variant = costs.modest(usable, begin, pressure, sensitivity)
    slowdown = costs.slowdown(variant, pressure)
    had = book.cores.size(request.group) if begin else 0
    resize, ready = book.config.overheads.resize, book.cores.size(book.ready)
    slack = (request.deadline - book.now) * _SAFE // UNDISTURBED
    options: list[_Option] = []
    able: _Option | None = None
    for cores, alone in zip(costs.counts, costs.times(variant, begin), strict=True):
        if options and cores > ready:
            break
        time = alone * slowdown // UNDISTURBED
        if had and cores != had:
            time += resize
        option = (time * cores, time, cores)
        options.append(option)
        if time <= slack and (able is None or option < able):
            able = option
    price, time, cores = able or min(options)
    narrow = cores
    if able and room > cores:
        bound = price * (UNDISTURBED + _WIDEN) // UNDISTURBED
        for wide_price, wide_time, wide in options:
            if cores < wide <= room and wide_price <= bound and wide_time < time:
                time, cores = wide_time, wide
    if cores != usable:
        variant = costs.modest(cores, begin, pressure, sensitivity)
    return Fit(cores, variant, narrow)


def over_share(book: Book) -> frozenset[TenantId]:
    """Tenants that have used more than their share lately; and tenants that have used far more than
    the load that was stated for them, also in comparison with others: when everybody sends more
    than was said, nobody is over."""
    shared = [(name, tenant) for name, tenant in book.tenants.items() if tenant.spec.share]
    stated = [(n, t) for n, t in book.tenants.items() if t.spec.load and not t.spec.share]
    if not shared and not stated:
        return frozenset()
    total = sum(tenant.used for tenant in book.tenants.values())
    used = sum(tenant.used for _, tenant in stated)
    loads = sum(tenant.spec.load for _, tenant in stated)
    allowed = _OVER * _SECONDS * SECOND // 1000
    over = [name for name, t in shared if t.used * UNDISTURBED > t.spec.share * total]
    over += [
        name
        for name, t in stated
        if t.used > t.spec.load * allowed and t.used * loads > _OVER * t.spec.load * used
    ]
    return frozenset(over)
