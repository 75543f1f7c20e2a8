from __future__ import annotations

import pytest
from plan.cases import EXAMPLE

from tenantdl.plan.module import (
    Tier,
    batch_aware_latency,
    latencies,
    plan_of,
    round_robin_latency,
)
from tenantdl.plan.profile import Configuration

B2, B8, B32 = EXAMPLE


def test_batches_are_collected_at_the_rate_of_this_tier_and_all_below() -> None:
    tiers = [Tier(B32, 4), Tier(B8, 1), Tier(B2, 0, 0.3)]
    found = {tier.configuration.batch: latency for tier, _, latency in latencies(tiers)}
    assert found == pytest.approx({32: 0.8 + 32 / 198, 8: 0.25 + 8 / 38, 2: 0.1 + 2 / 6})
    assert batch_aware_latency(tiers) == pytest.approx(0.8 + 32 / 198)


def test_a_fraction_counts_itself_and_what_follows_only() -> None:
    found = latencies([Tier(B32, 4, 0.5), Tier(B2, 0, 0.3)])
    by_kind = {(tier.configuration.batch, full): latency for tier, full, latency in found}
    assert by_kind[32, False] == pytest.approx(0.8 + 32 / 26)
    assert by_kind[32, True] == pytest.approx(0.8 + 32 / 186)


def test_equal_ratios_collect_together() -> None:
    one, other = Configuration(4, 0.1), Configuration(8, 0.2)
    assert batch_aware_latency([Tier(other, 1), Tier(one, 1)]) == pytest.approx(0.2 + 8 / 80)
    found = latencies([Tier(other, 1), Tier(one, 1)])
    assert [latency for *_, latency in found] == pytest.approx([0.2 + 8 / 80, 0.1 + 4 / 80])


def test_round_robin_takes_twice_the_duration() -> None:
    assert round_robin_latency([Tier(B8, 3), Tier(B2, 0, 0.3)]) == pytest.approx(0.5)
    assert round_robin_latency([Tier(B2, 0, 0.3)]) == pytest.approx(0.1 + 2 / 6)


def test_what_is_served_beyond_the_rate_is_dummy() -> None:
    plan = plan_of(198, [Tier(B2, 0), Tier(B32, 5)])
    assert (plan.cost, plan.machines) == (5, 5)
    assert plan.dummy == pytest.approx(2)
    assert plan.tiers == (Tier(B32, 5),)
    assert plan_of(200, [Tier(B32, 5)]).dummy == 0
