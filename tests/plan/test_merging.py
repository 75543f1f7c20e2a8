"""Merging over made-up quotes, where the right answer is known."""

from __future__ import annotations

import numpy as np
import pytest
from plan.cases import EXAMPLE

from tenantdl.errors import UserError
from tenantdl.plan.merging import (
    MERGINGS,
    alone,
    best_grouping,
    even_groups,
    exhaustive,
    two_stage,
)
from tenantdl.plan.provision import Group, Offer, Tenant, by_rate, slots

TENANTS = [Tenant(name, slo, 1.0) for name, slo in (("a", 1.0), ("b", 2.0), ("c", 3.0), ("d", 4.0))]


def _names(grouping: object) -> list[str]:
    groups = grouping.groups  # type: ignore[attr-defined]
    return sorted("".join(sorted(tenant.name for tenant in group)) for group, _ in groups)


def _pairs(*good: str):  # type: ignore[no-untyped-def]
    """Groups in `good` cost 1, singletons 1 each, everything else 10."""

    def quote(group: Group) -> Offer:
        name = "".join(sorted(tenant.name for tenant in group))
        return Offer(1.0 if len(group) == 1 or name in good else 10.0, name, accelerated=True)

    return quote


def test_consecutive_groups_are_found() -> None:
    assert _names(best_grouping(TENANTS, _pairs("ab", "cd"))) == ["ab", "cd"]
    assert _names(best_grouping(TENANTS, _pairs("bc"))) == ["a", "bc", "d"]


def test_groups_need_not_be_consecutive() -> None:
    quote = _pairs("ac", "bd")
    assert _names(exhaustive(TENANTS, quote)) == ["ac", "bd"]
    assert _names(best_grouping(TENANTS, quote)) == ["ac", "bd"]


def test_the_published_stages_step_back_after_a_merge() -> None:
    assert _names(two_stage(TENANTS, _pairs("bc", "abc"))) == ["abc", "d"]


def test_alone_and_even_groups() -> None:
    assert _names(alone(TENANTS, _pairs("ab"))) == ["a", "b", "c", "d"]
    assert _names(even_groups(TENANTS, _pairs("ab", "cd"))) == ["ab", "cd"]
    assert _names(even_groups(TENANTS, _pairs("bc"))) == ["a", "b", "c", "d"]


@pytest.mark.parametrize("name", sorted(MERGINGS))
def test_who_cannot_be_served_at_all_has_no_grouping(name: str) -> None:
    assert MERGINGS[name](TENANTS, lambda group: None) is None


def test_bad_input_is_refused() -> None:
    with pytest.raises(UserError, match="two tenants of one name"):
        best_grouping([TENANTS[0], TENANTS[0]], _pairs())
    with pytest.raises(UserError, match="1 to 64 tenants"):
        best_grouping([], _pairs())
    many = [Tenant(str(n), 1.0, 1.0) for n in range(9)]
    with pytest.raises(UserError, match="at most 8"):
        exhaustive(many, _pairs())


@pytest.mark.parametrize("seed", range(6))
def test_merging_works_over_the_inner_planner_of_slots(seed: int) -> None:
    rng = np.random.default_rng(seed)
    tenants = [
        Tenant(f"t{n}", float(rng.uniform(0.3, 2)), float(rng.uniform(1, 60))) for n in range(4)
    ]
    quote = by_rate(slots("m", EXAMPLE))
    ours, best, single = (f(tenants, quote) for f in (best_grouping, exhaustive, alone))
    assert ours is not None and best is not None and single is not None
    assert best.cost * (1 - 1e-9) <= ours.cost <= best.cost * 1.02
    assert ours.cost <= single.cost * (1 + 1e-9)
    assert all(offer.plan is not None for _, offer in ours.groups)
