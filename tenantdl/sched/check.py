"""The scheduler's invariants: every request, arena and launch is in exactly one place."""

from __future__ import annotations

from tenantdl.errors import InvariantError
from tenantdl.sched.book import Book
from tenantdl.sched.request import Request, State


def check(book: Book) -> None:
    """Raise InvariantError unless everything is in exactly one place."""
    for request in book.requests.values():
        _check_place(book, request)
    if book.late != sum(request.late for request in book.requests.values()):
        raise InvariantError(f"{book.late} requests are said to be late, others are")
    _check_models_and_tenants(book)
    _check_cores(book)
    for lane in book.lanes.values():
        orders = [lane.running] * (lane.running is not None) + lane.pending
        numbers = [order.launch for order in orders if order]
        if numbers != sorted(set(numbers)) or (numbers and not lane.ready):
            raise InvariantError(f"lane {lane.id} holds launches {numbers}")


def _check_models_and_tenants(book: Book) -> None:
    """Arenas are held once or free, and nobody has more requests than noted."""
    for model_id, model in book.models.items():
        live = [r for r in book.requests.values() if r.model == model_id]
        held = [r.arena for r in live if r.arena is not None]
        most = model.spec.arenas
        if sorted([*held, *model.free]) != list(range(model.made)):
            raise InvariantError(f"arenas of {model_id}: held {held}, free {model.free}")
        if model.live != len(live) or (most is not None and model.made > most):
            raise InvariantError(f"{model_id} counts {model}, has {len(live)} requests")
    for tenant_id, tenant in book.tenants.items():
        live = [r for r in book.requests.values() if r.tenant == tenant_id]
        under_way = sum(r.arena is not None for r in live)
        if (tenant.live, tenant.under_way) != (len(live), under_way):
            raise InvariantError(f"{tenant_id} counts {tenant}, has {len(live)}, {under_way}")


def _check_cores(book: Book) -> None:
    """Core groups are disjoint, and what nobody holds is free: a leaked core is found here."""
    taken = 0
    for lane in book.lanes.values():
        orders = [lane.running] * (lane.running is not None) + lane.pending
        held = 0
        for order in orders:
            if order is None or set(book.cores.cores(lane.masks[order.launch])) != set(order.cores):
                raise InvariantError(f"lane {lane.id} holds other cores than {order} says")
            held |= lane.masks[order.launch]
        if held != lane.held or taken & held or (orders and not held & lane.bit):
            raise InvariantError(f"lane {lane.id} holds {held:b}, noted {lane.held:b} of {taken:b}")
        taken |= held
    if book.free != book.ready & ~taken:
        raise InvariantError(f"cores {book.free:b} are free, should be {book.ready & ~taken:b}")


def _check_place(book: Book, request: Request) -> None:
    lanes = book.lanes.values()
    places = {
        State.WAITING: sum(r is request for r in book.queued()),
        State.PARKED: int(request.id in book.parked),
        State.RUNNING: sum(book.running(lane) is request for lane in lanes),
    }
    placed = sum(any(p.request == request.id for p in lane.pending) for lane in lanes)
    expected = dict.fromkeys(places, 0)
    if request.state is State.PLACED:
        if placed != 1:
            raise request.broken(f"placed on {placed} lanes")
    else:
        expected[request.state] = 1
    if places != expected:
        raise request.broken(f"{request.state.name}, but found in {places}")
    if (request.arena is None) != (request.state is State.WAITING):
        raise request.broken(f"{request.state.name} with arena {request.arena}")
