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
from tenantdl.sched.request import Request
from tenantdl.units import Ns


def admits(book: Book, event: RequestArrived, costs: PlanCosts, now: Ns) -> bool:
    """Whether to let the request in."""
    if now + costs.remaining(0) > event.deadline:
        return False
    inside = in_time(book, now)
    return fits(book, inside, costs, event.deadline, now) or not _over_portion(book, event)


def core_time(costs: PlanCosts, progress: int = 0) -> int:
    """What is left to do, in core ns, on the fewest cores there are costs for."""
    least = costs.counts[0]
    return costs.at(0, least).remaining(progress) * least


def in_time(book: Book, now: Ns) -> list[Request]:
    """The requests inside that could be in time, each if it were alone."""
    live = (r for r in book.requests.values() if not r.doomed and not r.late)
    return [r for r in live if book.eta(r, now) <= r.deadline]


def fits(
    book: Book, inside: list[Request], costs: PlanCosts, deadline: Ns, now: Ns, before: int = 0
) -> bool:
    """Whether all `inside` and a new request could be in time, if cores were one fast one (by
    deadline). `before`: core time (ns) of what comes first and is not inside yet."""
    work = [(r.deadline, r.seq, core_time(r.costs, r.progress)) for r in inside]
    work.append((deadline, 0, core_time(costs)))
    work.sort()
    cores = max(1, book.cores.size(book.ready))
    done = before
    for due, _, needs in work:
        done += needs
        if now + done // cores > due >= deadline:
            return False
    return True


def _over_portion(book: Book, event: RequestArrived) -> bool:
    tenants = book.tenants
    own = tenants[event.tenant]
    inside = sum(1 for tenant in tenants.values() if tenant.live or tenant is own)
    portion = own.spec.share or UNDISTURBED // inside
    return own.used * UNDISTURBED > portion * book.usage.used
