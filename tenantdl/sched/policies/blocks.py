"""How fine the blocks are: layers, fixed runs of layers, VELTAIR's adaptive blocks (§4.2).

All of them serve by arrival and give every block the cores that its part of the target needs
(`demand`). A block that finds fewer cores free (a *conflict*) starts on those and is cut short, so
that it can grow at the next segment. VELTAIR's interference level is one number for the machine:
the pressure at which the blocks that finished lately would have been as slow as they were.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from tenantdl.sched.book import Book
from tenantdl.sched.costs import UNDISTURBED, PlanCosts
from tenantdl.sched.demand import Needs, NeedsOf, fewest
from tenantdl.sched.placing import Choice, Decide, Want, WantFunction, arrival, place
from tenantdl.sched.request import Request
from tenantdl.units import Ns

# A request behind its plan goes at most this much faster than planned.
_CATCH_UP = 2


class Spare(NamedTuple):
    """What bounds a block: `average` cores of its model, `total` spare of the machine and `part`,
    the model's portion of it."""

    average: int
    total: int
    part: int


# (needs, costs, variant, first segment, spare) → segment at which the block ends.
Cut = Callable[[Needs, PlanCosts, int, int, Spare], int]


def fixed_block(book: Book, parameter: int) -> Decide:
    """Blocks of `parameter` segments; of one, with every layer on its own number of cores."""

    def cut(needs: Needs, costs: PlanCosts, variant: int, begin: int, spare: Spare) -> int:
        return min(costs.count, begin + max(1, parameter))

    return _by_arrival(book, _block_want(book, cut, adaptive=False))


def layerwise(book: Book, parameter: int) -> Decide:
    """Every segment is a block."""
    return fixed_block(book, 1)


def veltair_literal(book: Book, parameter: int) -> Decide:
    """The printed algorithm: a block ends before the first segment (the pivot) that needs as much
    as the model's average and all that is spare; a pivot starts the next block."""
    return _by_arrival(book, _block_want(book, cut_at_pivot, adaptive=True))


def veltair(book: Book, parameter: int) -> Decide:
    """The rule that its prose describes: the finest partition in which no block needs more than the
    model's average and its portion of what is spare."""
    return _by_arrival(book, _block_want(book, cut_finest, adaptive=True))


def veltair_as(book: Book, parameter: int) -> Decide:
    """Adaptive scheduling alone: one version of every layer, the one that is fastest alone."""
    return _by_arrival(book, _block_want(book, cut_finest, adaptive=False))


def cut_at_pivot(needs: Needs, costs: PlanCosts, variant: int, begin: int, spare: Spare) -> int:
    """VELTAIR, algorithm 2, where a found pivot is not dropped and none means the remainder."""
    threshold = spare.average + max(0, spare.total)
    for segment in range(begin + 1, costs.count):
        if needs.segments[segment] >= threshold:
            return segment
    return costs.count


def cut_finest(needs: Needs, costs: PlanCosts, variant: int, begin: int, spare: Spare) -> int:
    """The first end at which the block needs at most the average and the model's portion."""
    limit = min(costs.counts[-1], spare.average + max(0, spare.part))
    times = costs.at(variant, limit)
    for end in range(begin + 1, costs.count):
        if times.between(begin, end) <= needs.budgets[begin] - needs.budgets[end]:
            return end
    return costs.count


def _by_arrival(book: Book, want: WantFunction) -> Decide:
    def decide(now: Ns) -> Iterator[Choice]:
        yield from place(book, arrival, want)

    return decide


def _block_want(book: Book, cut: Cut, *, adaptive: bool) -> WantFunction:
    needs_of = NeedsOf()

    def want(request: Request, begin: int, available: int) -> Want | None:
        costs, target = request.costs, Ns(request.deadline - request.arrived)
        variant = costs.best_variant(available, begin, book.level) if adaptive else 0
        left = request.deadline - book.now
        slowdown = costs.slowdown(variant, book.level)
        if costs.remaining(begin) * slowdown > left * UNDISTURBED:
            # It cannot be in time: no more cores than it would need undisturbed.
            slowdown = UNDISTURBED
        needs = needs_of(costs, target, variant, slowdown)
        total = book.cores_max - _averages(book, needs_of)
        part = total * needs.average // max(1, book.cores_max - total)
        end = cut(needs, costs, variant, begin, Spare(needs.average, total, part))
        budget = needs.budgets[begin] - needs.budgets[end]
        if adaptive:
            budget = _catching_up(budget, needs.budgets[begin], left * UNDISTURBED // slowdown)
        cores = fewest(costs, variant, begin, end, budget)
        if cores > available:
            # A conflict: grow as soon as cores are free.
            end = begin + 1
        return Want(cores, (end,), variant)

    return want


def _catching_up(budget: int, planned: int, left: int) -> int:
    """A block's `budget`, shorter where less time is `left` than was `planned` for the rest; who is
    too far behind to catch up takes what was planned."""
    if left * _CATCH_UP < planned:
        return budget
    return budget * min(left, planned) // max(1, planned)


def _averages(book: Book, needs_of: NeedsOf) -> int:
    """The sum of the average needs of all models that are under way."""
    total = 0
    for lane in book.busy.values():
        request = book.running(lane) or book.requests[lane.pending[-1].request]
        target = Ns(request.deadline - request.arrived)
        total += needs_of(request.costs, target).average
    return total
