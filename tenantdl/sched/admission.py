"""Admission: what cannot be in time is refused at its arrival, and by tenant share.

A request is refused if it could not be in time on an empty machine; and, when the machine is too
full for everybody (the work of all live requests that can be in time, served by deadline, would
make it or one of them late), if its tenant has used more than its portion of the core time lately.
So a flood is turned away at the door, and its neighbours are not.

Everybody's portion is an equal part among the tenants inside, or the tenant's `share`.
"""

from __future__ import annotations

from tenantdl.sched.book import Book
from tenantdl.sched.costs import UNDISTURBED, PlanCosts
from tenantdl.sched.messages import RequestArrived
from tenantdl.units import Ns


def admits(book: Book, event: RequestArrived, costs: PlanCosts, now: Ns) -> bool:
    """Whether to let the request in."""
    if now + costs.remaining(0) > event.deadline:
        return False
    return _fits(book, event, costs, now) or not _over_portion(book, event)


def _fits(book: Book, event: RequestArrived, costs: PlanCosts, now: Ns) -> bool:
    """Whether all could be in time, the new one too, if cores were one fast one (by deadline)."""
    work = [
        (request.deadline, request.seq, _core_time(request.costs, request.progress))
        for request in book.requests.values()
        if not request.doomed and book.eta(request, now) <= request.deadline
    ]
    work.append((event.deadline, 0, _core_time(costs, 0)))
    work.sort()
    cores = max(1, book.cores.size(book.ready))
    done = 0
    for deadline, _, needs in work:
        done += needs
        if now + done // cores > deadline >= event.deadline:
            return False
    return True


def _core_time(costs: PlanCosts, progress: int) -> int:
    """What is left to do, in core ns, on the fewest cores there are costs for."""
    least = costs.counts[0]
    return costs.at(0, least).remaining(progress) * least


def _over_portion(book: Book, event: RequestArrived) -> bool:
    tenants = book.tenants
    own = tenants[event.tenant]
    inside = sum(1 for tenant in tenants.values() if tenant.live or tenant is own)
    portion = own.spec.share or UNDISTURBED // inside
    return own.used * UNDISTURBED > portion * book.usage.used
