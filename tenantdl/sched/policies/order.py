"""Whole models on the cores that their target needs: by arrival, or by deadline with preemption."""

from __future__ import annotations

from collections.abc import Iterator

from tenantdl.sched.book import Book
from tenantdl.sched.demand import NeedsOf
from tenantdl.sched.placing import (
    Choice,
    Decide,
    Want,
    WantFunction,
    arrival,
    place,
    take_over,
    urgency,
)
from tenantdl.sched.request import Request
from tenantdl.units import Ns


def model_fcfs(book: Book, parameter: int) -> Decide:
    """Whole models in the order of arrival; who does not get its cores holds up the others."""
    want = whole_model(book)

    def decide(now: Ns) -> Iterator[Choice]:
        yield from place(book, arrival, want, lambda request: True)
        yield from take_over(book, arrival, want, preempts=False)

    return decide


def edf(book: Book, parameter: int) -> Decide:
    """Earliest deadline first at ends of blocks; what cannot be in time goes last (worth 1.3x of
    load at 95 % of requests in time)."""
    want = whole_model(book)

    def decide(now: Ns) -> Iterator[Choice]:
        book.mark_late(now)
        yield from place(book, urgency, want)
        yield from take_over(book, urgency, want, preempts=True)

    return decide


def whole_model(book: Book) -> WantFunction:
    """The cores that the whole model needs for its target, no fewer; up to `blocks_max` blocks."""
    needs, blocks_max = NeedsOf(), book.config.blocks_max

    def want(request: Request, begin: int, available: int) -> Want | None:
        costs = request.costs
        slowdown = costs.slowdown(0, book.level)
        average = needs(costs, Ns(request.deadline - request.arrived), 0, slowdown).average
        cores = costs.usable(min(average, book.cores.size(book.ready)))
        return Want(cores, costs.at(0, cores).block_ends(begin, blocks_max), least=cores)

    return want
