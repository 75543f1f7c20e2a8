"""Fixed parts of the machine for every tenant, and parts that follow the tenants' latency.

`static-partition` is what pinning a process a model gives: the strongest practical baseline, it
protects everyone and wastes cores. The parts are searched for the declared load. `thin-instances`
is Packrat (ICML '25): several narrow instances of a model in place of one wide one, chosen by the
same search. `parties` is PARTIES (ASPLOS '19, §4): every 0.1 s a service short of slack grows and
one with slack to spare shrinks. All serve whole models by arrival.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from tenantdl.ids import ModelId, TenantId
from tenantdl.sched.book import Book
from tenantdl.sched.config import TenantSpec
from tenantdl.sched.costs import PlanCosts
from tenantdl.sched.placing import (
    Choice,
    Decide,
    Want,
    WantFunction,
    arrival,
    candidates,
    on_free_cores,
)
from tenantdl.sched.request import Request
from tenantdl.units import SECOND, Ns

_PERIOD = Ns(SECOND // 10)
# PARTIES: less slack than this (in 1/1000 of the target) asks for more, more than that gives back.
_SLACK_LOW, _SLACK_HIGH = 50, 200
# Waiting counts so much in the search: the tail waits longer than the mean.
_TAIL = 3
_HOPELESS = 10**9


class Part(NamedTuple):
    """`mask`: the cores of a group of tenants; an instance has `width` of them."""

    mask: int
    width: int


def static_partition(book: Book, parameter: int) -> Decide:
    """One instance a tenant, on all the cores of its part."""
    return _partitioned(book, lambda costs, cores: (costs.usable(cores),))


def thin_instances(book: Book, parameter: int) -> Decide:
    """As many instances a tenant, and as wide, as promise the best tail."""
    return _partitioned(book, lambda costs, cores: tuple(c for c in costs.counts if c <= cores))


def _partitioned(book: Book, widths: Callable[[PlanCosts, int], tuple[int, ...]]) -> Decide:
    parts = search(book, widths)

    def decide(now: Ns) -> Iterator[Choice]:
        for tenant in list(book.waiting):
            part = parts[tenant]
            while (head := book.tenants[tenant].queue.head) and book.has_arena(head):
                choice = _within(book, head, part)
                if choice is None:
                    break
                yield choice
        for request in list(book.parked.values()):
            # Blocks are many, instances few: a long launch goes on where it was.
            choice = _within(book, request, parts[request.tenant])
            if choice is not None:
                yield choice

    return decide


def _within(book: Book, request: Request, part: Part) -> Choice | None:
    width = min(part.width, book.cores.size(part.mask & book.ready))
    ends = request.costs.at(0, width).block_ends(request.progress, book.config.blocks_max)
    return on_free_cores(book, request, Want(width, ends, least=width), within=part.mask)


def search(book: Book, widths: Callable[[PlanCosts, int], tuple[int, ...]]) -> dict[TenantId, Part]:
    """Parts for the declared load: one core after the other goes to whoever is worst off. With more
    tenants than lanes, tenants share parts, the busiest with the idlest."""
    if not book.models or not book.tenants:
        return dict.fromkeys(book.tenants, Part(book.cores.everything, 1))
    lanes = len(book.by_bit)
    groups: list[list[TenantSpec]] = [[] for _ in range(min(lanes, len(book.tenants)))]
    load = [0] * len(groups)
    specs = [tenant.spec for tenant in book.tenants.values()]
    plans = {spec.tenant: _plan_of(book, spec) for spec in specs}
    for spec in sorted(specs, key=lambda s: _work(s, plans[s.tenant], 1), reverse=True):
        least = min(range(len(groups)), key=lambda g: (load[g], len(groups[g])))
        groups[least].append(spec)
        load[least] += _work(spec, plans[spec.tenant], 1)
    grain = book.cores.size(1)
    given = [1] * len(groups)
    for _ in range(lanes - len(groups)):
        scores = [
            _tail(group, plans, lanes_given * grain, widths)[0]
            for group, lanes_given in zip(groups, given, strict=True)
        ]
        given[scores.index(max(scores))] += 1
    parts: dict[TenantId, Part] = {}
    first = 0
    for group, lanes_given in zip(groups, given, strict=True):
        mask = ((1 << lanes_given) - 1) << first
        first += lanes_given
        width = _tail(group, plans, lanes_given * grain, widths)[1]
        parts |= {spec.tenant: Part(mask, width) for spec in group}
    return parts


def _plan_of(book: Book, spec: TenantSpec) -> PlanCosts:
    name = spec.model or ModelId(spec.tenant)
    return book.served.plan_costs(name if name in book.models else next(iter(book.models)), 0)


def _work(spec: TenantSpec, plan: PlanCosts, cores: int) -> int:
    """Utilisation in 1/10⁶ of one instance on `cores` cores by the tenant's load alone."""
    return spec.requests_ks * plan.at(0, cores).remaining(0) // (SECOND // 1000)


def _tail(
    group: list[TenantSpec],
    plans: dict[TenantId, PlanCosts],
    cores: int,
    widths: Callable[[PlanCosts, int], tuple[int, ...]],
) -> tuple[int, int]:
    """The worst tail latency over target (1/1000) in the group, and the width that it takes: an
    M/D/k queue, approximated by service · load / (2k · (1 - load))."""
    best = (_HOPELESS * 2, 1)
    for width in widths(plans[group[0].tenant], cores):
        instances = max(1, cores // width)
        load = sum(_work(spec, plans[spec.tenant], width) for spec in group) // instances
        worst = 0
        for spec in group:
            service = plans[spec.tenant].at(0, width).remaining(0)
            target = max(1, spec.qos)
            if load >= 10**6:
                score = _HOPELESS + load
            else:
                waiting = service * load // (2 * instances * (10**6 - load))
                score = 1000 * (service + _TAIL * waiting) // target
            worst = max(worst, score)
        best = min(best, (worst, width))
    return best


def parties(book: Book, parameter: int) -> Decide:
    """Budgets of cores that grow and shrink one step every 0.1 s; a service runs whole models
    within its budget."""
    count = max(1, len(book.tenants))
    step = max(1, book.cores_max // 32)
    budgets = dict.fromkeys(book.tenants, max(1, book.cores_max // count))
    want = _whole(book)

    def decide(now: Ns) -> Iterator[Choice]:
        if book.wakeup is None or now >= book.wakeup:
            _adjust(book, budgets, step)
            book.wakeup = Ns(now + _PERIOD) if book.requests else None
        if not book.free:
            return
        used = _used(book)
        for first in sorted(candidates(book), key=arrival):
            name = first.tenant
            request: Request | None = first
            while request is not None and book.has_arena(request):
                wanted = want(request, request.progress, budgets[name] - used.get(name, 0))
                choice = on_free_cores(book, request, wanted) if wanted else None
                if choice is None:
                    break
                yield choice
                used[name] = used.get(name, 0) + book.cores.size(choice.mask)
                request = book.tenants[name].queue.head

    return decide


def _whole(book: Book) -> WantFunction:
    """A service's free budget is shared out among its requests that wait."""

    def want(request: Request, begin: int, room: int) -> Want | None:
        if room < 1:
            return None
        costs = request.costs
        cores = costs.usable(max(1, room // max(1, len(book.tenants[request.tenant].queue))))
        ends = costs.at(0, cores).block_ends(begin, book.config.blocks_max)
        return Want(cores, ends, least=cores)

    return want


def _used(book: Book) -> dict[TenantId, int]:
    used: dict[TenantId, int] = {}
    for lane in book.busy.values():
        order = lane.pending[-1] if lane.pending else lane.running
        if order is not None:
            tenant = book.requests[order.request].tenant
            used[tenant] = used.get(tenant, 0) + book.cores.size(lane.held)
    return used


def _adjust(book: Book, budgets: dict[TenantId, int], step: int) -> None:
    """One service grows by `step`, if need be at the expense of the one with most slack; if none is
    short, the one with most slack gives a step back."""
    slack = {
        name: 1000 - sorted(tenant.lateness)[len(tenant.lateness) * 19 // 20]
        for name, tenant in book.tenants.items()
        if tenant.lateness
    }
    if not slack:
        return
    worst = min(slack, key=lambda name: (slack[name], name))
    rich = [n for n in slack if slack[n] > _SLACK_HIGH and budgets[n] > step]
    richest = max(rich, key=lambda name: (slack[name], name), default=None)
    free = book.cores_max - sum(budgets.values())
    if slack[worst] < _SLACK_LOW:
        if free < step and richest is not None:
            budgets[richest] -= step
            free += step
        if free >= step:
            budgets[worst] += step
    elif richest is not None:
        budgets[richest] -= step
