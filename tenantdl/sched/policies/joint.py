"""tenantdl's own policy: cores, variant, end of block and start, chosen together.

For a request with `slack` until its deadline, every (variant v, cores c) there are costs for is
weighed by the core time that it takes, of its own and of others:

    finish(v, c) = remaining(v, c) · slowdown(v, pressure now) + resize + migration
    price(v, c)  = c · finish · (1 + exerted(v, c)/c · sensitivity of what runs now)

The cheapest choice that finishes within a safe part of the slack is taken: core time is what is
scarce, so deadlines are met with as little of it as possible. Cores that nobody waits for widen the
choice as long as that costs little more core time. Those that cannot be in time go last; tenants
over their share go after those under it while both wait; otherwise requests are served by deadline.
On real lanes by when they had to start: by deadline alone a long request comes after all the short
ones that were asked for until shortly before its end, and is late for them. But under more load
than can be borne that would only make more of them late: then by deadline again. A wide request
that is about to become late holds back cores from those behind it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from tenantdl.ids import TenantId
from tenantdl.sched.book import Book
from tenantdl.sched.costs import UNDISTURBED
from tenantdl.sched.placing import Choice, Decide, Want, claimed, place, take_over
from tenantdl.sched.queue import Rank
from tenantdl.sched.request import Request, State
from tenantdl.units import SECOND, Ns

# Of the slack, in 1/1000, that a prediction may fill: predictions err. Less on real lanes, where
# they err more, cores missed later may be taken, and an answer has yet to reach its client; who
# cannot have that much to spare gets what is fastest.
_SAFE, _SAFE_REAL = 960, 770
# Where lanes are simulated as undisturbed but for what tables foresee, nobody gets the machine like
# that: who could be in time only so much faster (1/1000) is late. What real lanes report has all of
# it in it, and who was taken for late too early is never served in time again.
_LATE = 1250
# Added core time, in 1/1000, that idle cores may be spent on to finish sooner: beside others, whose
# caches it costs as well, and where nobody else runs: who comes gets cores at the end of a block.
# (Served, a second core costs a third more, alone a tenth.)
_WIDEN, _WIDEN_ALONE = 150, 700
# Times its stated load that a tenant may use before others go first. What it used lately is halved
# every second: it is that of one to two seconds.
_OVER, _SECONDS = 2, 2
# Launches on more cores than needed have so many times fewer blocks; and so have all for a while
# after somebody wide came, who cannot have its cores before other launches end.
_BRIEF, _WIDE = 4, Ns(SECOND)
# Hopeless requests inside, for a core, that are a sign of more load than can be borne.
_LATE_MANY = 6


class Fit(NamedTuple):
    """What to give a request: `cores` and a variant; fewer cores (`narrow`) would do."""

    cores: int
    variant: int
    narrow: int


def tenantdl(book: Book, parameter: int) -> Decide:
    """See the module."""
    ahead = book.config.ahead
    blocks_max = book.config.blocks_max if ahead else 1
    rivals = 0
    wide = Ns(-SECOND)
    fair = ahead

    def rank(request: Request) -> Rank:
        over, doomed = over_share(book, request.tenant), request.doomed is not None
        due = request.latest if fair else request.deadline
        return (doomed, request.late, over, request.priority, due, request.seq)

    def want(request: Request, begin: int, available: int) -> Want | None:
        nonlocal wide
        among = rivals + (request.state is State.RUNNING)
        fit = find_fit(book, request, begin, available // max(1, among))
        cores = min(fit.cores, available)
        if _is_wide(request):
            wide = book.now
        blocks = blocks_max
        if cores < fit.narrow:
            # Who has less than it needs is asked again as soon as can be.
            blocks = 1
        elif cores > fit.narrow or book.now - wide < _WIDE:
            blocks = max(1, blocks_max // _BRIEF)
        ends = request.costs.at(fit.variant, cores).block_ends(begin, blocks)
        return Want(fit.cores, ends, fit.variant, least=1 if ahead else fit.cores)

    def holds(request: Request) -> bool:
        return not request.late

    def decide(now: Ns) -> Iterator[Choice]:
        nonlocal rivals, fair
        if not book.free and not ahead:
            return
        book.mark_late(now, UNDISTURBED if ahead else _LATE, modest=ahead)
        fair = ahead and book.late <= _LATE_MANY * book.cores_max
        # Cores are shared out among the requests that no lane runs, and who runs and goes on.
        rivals = len(book.requests) - len(book.busy)
        claim = claimed(book, rank) if ahead else None
        yield from place(book, rank, want, holds, claim)
        claim = claimed(book, rank) if ahead else None
        yield from take_over(book, rank, want, preempts=ahead, claim=claim)

    return decide


def _is_wide(request: Request) -> bool:
    """Whether its target, not only its being behind, takes more cores than the fewest."""
    costs = request.costs
    alone = costs.at(0, costs.counts[0]).remaining(0)
    return alone > request.deadline - request.arrived


def find_fit(book: Book, request: Request, begin: int, room: int) -> Fit:
    """The cheapest way to be in time, wider if that costs little and there is `room` for it; the
    cheapest way at all, if there is none. `begin`: where it would go on, after what it runs now."""
    costs = request.costs
    pressure = min(UNDISTURBED, max(book.pressure // book.cores_max, book.level))
    usable = costs.usable(max(1, room))
    sensitivity = book.sensitivity * UNDISTURBED // book.cores_max
    variant = costs.modest(usable, begin, pressure, sensitivity)
    slowdown = costs.slowdown(variant, pressure)
    had = book.cores.size(request.group) if begin else 0
    resize, ready = book.config.overheads.resize, book.cores.size(book.ready)
    slack = request.deadline - book.now
    safe = slack * (_SAFE_REAL if book.config.ahead else _SAFE) // UNDISTURBED
    slack = slack * _SAFE // UNDISTURBED
    if begin > request.progress:  # what runs now comes first
        first = costs.at(variant, had).between(request.progress, begin)
        slack, safe = slack - first, safe - first
    times: list[int] = []
    # Without one that is in time, the cheapest is taken.
    place, least, able = 0, 0, 0
    alone = costs.times(variant, begin)
    for number, cores in enumerate(costs.counts):
        if number and cores > ready:
            break
        time = alone[number] * slowdown // UNDISTURBED
        if had and cores != had:
            time += resize
        price = time * cores
        in_time = 2 if time <= safe else 1 if time <= slack else 0
        less = time < times[place] if in_time == 1 and number else price < least
        if not number or in_time > able or (in_time == able and less):
            place, least, able = number, price, in_time
        times.append(time)
    narrow = costs.counts[place]
    if able and room > narrow:
        widen = _WIDEN if room < ready else _WIDEN_ALONE
        bound = least * (UNDISTURBED + widen) // UNDISTURBED
        for wider in range(place + 1, len(times)):
            if costs.counts[wider] > room:
                break
            if times[wider] < times[place] and times[wider] * costs.counts[wider] <= bound:
                place = wider
    cores = costs.counts[place]
    if cores != usable:
        variant = costs.modest(cores, begin, pressure, sensitivity)
    return Fit(cores, variant, narrow)


def over_share(book: Book, name: TenantId) -> bool:
    """Whether a tenant has used more than its share lately; or got far more done than the load that
    was stated for it, also in comparison with others: when everybody sends more than was said,
    nobody is over."""
    tenant, usage = book.tenants[name], book.usage
    share, load = tenant.spec.share, tenant.spec.load
    if share:
        return tenant.used * UNDISTURBED > share * usage.used
    allowed = _OVER * _SECONDS * SECOND // 1000
    far = load > 0 and tenant.got > load * allowed
    return far and tenant.got * usage.stated > _OVER * load * usage.got
