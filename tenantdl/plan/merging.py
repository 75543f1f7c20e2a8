"""Which tenants of a model share a queue: HarmonyBatch's two-stage merging (§4), our own, all
partitions, and its baselines. Works over any quotes (see `provision`).

`harmonybatch-paper`  singletons by ascending target; consecutive CPU groups are merged once their
                      rate passes the knee, where a single tenant flips to slices; then pairs
                      with an accelerated side are merged while that saves, stepping back.
`harmonybatch`        the best partition into groups that are consecutive by target, by dynamic
                      programming, and then moves, swaps and merges of tenants while they save.
`exhaustive`          every partition, for few tenants.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from tenantdl.errors import UserError
from tenantdl.plan.provision import Group, Offer, Quote, Tenant

TENANTS_MAX = 64
EXHAUSTIVE_MAX = 8
_KNEE_RATE_MAX = 1e4
_KNEE_STEPS = 40
_LESS = 1 - 1e-9


@dataclass(frozen=True, slots=True)
class Grouping:
    """Groups with the offer that each takes."""

    groups: tuple[tuple[Group, Offer], ...]

    @property
    def cost(self) -> float:
        """Price a unit of time of all groups."""
        return sum(offer.cost for _, offer in self.groups)


@dataclass(slots=True)
class _Quotes:
    """Quotes of groups, each asked for once."""

    ask: Quote
    known: dict[Group, Offer | None] = field(default_factory=dict)

    def __call__(self, group: Group) -> Offer | None:
        group = _sorted(group)
        if group not in self.known:
            self.known[group] = self.ask(group)
        return self.known[group]

    def cost(self, group: Group) -> float:
        """Cost of a group; infinite if it cannot be served."""
        offer = self(group)
        return float("inf") if offer is None else offer.cost


Merging = Callable[[Sequence[Tenant], Quote], "Grouping | None"]


def best_grouping(tenants: Sequence[Tenant], quote: Quote) -> Grouping | None:
    """Our merging; None if some tenant cannot be served at all."""
    ordered, quotes = _checked(tenants), _Quotes(quote)
    groups = _consecutive(ordered, quotes)
    return None if groups is None else _grouping(_improved(groups, quotes), quotes)


def two_stage(tenants: Sequence[Tenant], quote: Quote) -> Grouping | None:
    """HarmonyBatch's merging as published; None if some tenant cannot be served at all."""
    ordered, quotes = _checked(tenants), _Quotes(quote)
    if any(quotes((tenant,)) is None for tenant in ordered):
        return None
    groups = _first_stage([(tenant,) for tenant in ordered], quotes)
    return _grouping(_second_stage(groups, quotes), quotes)


def alone(tenants: Sequence[Tenant], quote: Quote) -> Grouping | None:
    """A queue for every tenant; None if some cannot be served."""
    return _grouping([(tenant,) for tenant in _checked(tenants)], _Quotes(quote))


def even_groups(tenants: Sequence[Tenant], quote: Quote) -> Grouping | None:
    """MBS+ (reconstruction): tenants by ascending target in 1 to n groups of equal size, whichever
    count is cheapest."""
    ordered, quotes = _checked(tenants), _Quotes(quote)
    found = []
    for count in range(1, len(ordered) + 1):
        size = -(-len(ordered) // count)
        groups = [ordered[at : at + size] for at in range(0, len(ordered), size)]
        found.append(_grouping(groups, quotes))
    return min((g for g in found if g is not None), key=lambda g: g.cost, default=None)


def exhaustive(tenants: Sequence[Tenant], quote: Quote) -> Grouping | None:
    """The cheapest of all partitions. Raises UserError for more than EXHAUSTIVE_MAX tenants."""
    ordered, quotes = _checked(tenants), _Quotes(quote)
    if len(ordered) > EXHAUSTIVE_MAX:
        raise UserError(f"too many tenants to try all partitions: at most {EXHAUSTIVE_MAX}")
    found = (_grouping(groups, quotes) for groups in _partitions(ordered))
    return min((g for g in found if g is not None), key=lambda g: g.cost, default=None)


MERGINGS: dict[str, Merging] = {
    "harmonybatch": best_grouping,
    "harmonybatch-paper": two_stage,
    "even-groups": even_groups,
    "alone": alone,
}


def knee(slo_s: float, quote: Quote) -> float:
    """Requests a second from which a single tenant is served on slices; infinite if never."""

    def accelerated(rate: float) -> bool:
        offer = quote((Tenant("knee", slo_s, rate),))
        return offer is not None and offer.accelerated

    low, high = 1e-3, _KNEE_RATE_MAX
    if not accelerated(high):
        return float("inf")
    if accelerated(low):
        return 0.0
    for _ in range(_KNEE_STEPS):
        middle = (low * high) ** 0.5
        low, high = (low, middle) if accelerated(middle) else (middle, high)
    return high


def _checked(tenants: Sequence[Tenant]) -> Group:
    if not 1 <= len(tenants) <= TENANTS_MAX:
        raise UserError(f"merging takes 1 to {TENANTS_MAX} tenants, not {len(tenants)}")
    if len({tenant.name for tenant in tenants}) < len(tenants):
        raise UserError("two tenants of one name")
    return _sorted(tenants)


def _sorted(tenants: Sequence[Tenant]) -> Group:
    return tuple(sorted(tenants, key=lambda tenant: (tenant.slo_s, tenant.name)))


def _grouping(groups: Sequence[Group], quotes: _Quotes) -> Grouping | None:
    offers = [(_sorted(group), quotes(group)) for group in groups]
    known = tuple((group, offer) for group, offer in offers if offer is not None)
    return Grouping(known) if len(known) == len(offers) else None


def _first_stage(groups: list[Group], quotes: _Quotes) -> list[Group]:
    merged: list[Group] = []
    run: list[Group] = []
    for group in [*groups, None]:
        offer = None if group is None else quotes(group)
        if group is not None and offer is not None and not offer.accelerated:
            run.append(group)
            together = tuple(itertools.chain(*run))
            passed = sum(t.rate for t in together) > knee(together[0].slo_s, quotes)
            if passed and quotes(together) is not None:
                merged.append(together)
                run = []
            continue
        merged += run
        run = []
        if group is not None:
            merged.append(group)
    return merged


def _second_stage(groups: list[Group], quotes: _Quotes) -> list[Group]:
    groups = list(groups)
    at = 0
    while at < len(groups) - 1:
        one, other = groups[at], groups[at + 1]
        sides = [quotes(one), quotes(other)]
        either = any(offer is not None and offer.accelerated for offer in sides)
        if either and quotes.cost(one + other) <= quotes.cost(one) + quotes.cost(other):
            groups[at : at + 2] = [one + other]
            at = max(at - 1, 0)
        else:
            at += 1
    return groups


def _consecutive(ordered: Group, quotes: _Quotes) -> list[Group] | None:
    """The cheapest partition into runs of consecutive tenants."""
    best: list[tuple[float, int]] = [(0.0, 0)]
    for end in range(1, len(ordered) + 1):
        best.append(
            min((best[begin][0] + quotes.cost(ordered[begin:end]), begin) for begin in range(end))
        )
    if best[-1][0] == float("inf"):
        return None
    groups: list[Group] = []
    end = len(ordered)
    while end:
        begin = best[end][1]
        groups.append(ordered[begin:end])
        end = begin
    return groups[::-1]


def _improved(groups: list[Group], quotes: _Quotes) -> list[Group]:
    """Local search: the first neighbour that saves, until none does."""
    now = list(groups)
    while True:
        better = next((other for other in _neighbours(now, quotes)), None)
        if better is None:
            return now
        now = better


def _neighbours(groups: list[Group], quotes: _Quotes) -> Iterator[list[Group]]:
    """Groupings that cost less and differ by a tenant moved, two swapped or two groups merged."""
    for one, other in itertools.permutations(range(len(groups)), 2):
        rest = [g for n, g in enumerate(groups) if n not in (one, other)]
        before = quotes.cost(groups[one]) + quotes.cost(groups[other])
        pairs: list[tuple[Group, Group]] = []
        if one < other:
            pairs.append((groups[one] + groups[other], ()))
        pairs += [
            (tuple(t for t in groups[one] if t != mover), (*groups[other], mover))
            for mover in groups[one]
        ]
        if one < other:
            pairs += [
                (
                    (*(t for t in groups[one] if t != a), b),
                    (*(t for t in groups[other] if t != b), a),
                )
                for a, b in itertools.product(groups[one], groups[other])
            ]
        for pair in pairs:
            kept = [group for group in pair if group]
            if sum(quotes.cost(group) for group in kept) < before * _LESS:
                yield [*rest, *kept]
    for number, group in enumerate(groups):
        rest = [g for n, g in enumerate(groups) if n != number]
        for mover in group if len(group) > 1 else ():
            left = tuple(t for t in group if t != mover)
            if quotes.cost(left) + quotes.cost((mover,)) < quotes.cost(group) * _LESS:
                yield [*rest, left, (mover,)]


def _partitions(tenants: Group) -> Iterator[list[Group]]:
    if not tenants:
        yield []
        return
    first, rest = tenants[0], tenants[1:]
    for groups in _partitions(rest):
        yield [(first,), *groups]
        for number, group in enumerate(groups):
            yield [*groups[:number], (first, *group), *groups[number + 1 :]]
