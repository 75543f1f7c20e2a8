"""HarmonyBatch's models and merging: goldens, and everything that should never happen."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from tenantdl.plan.functions import read_profiles
from tenantdl.plan.harmonybatch import equivalent_timeout, functions_for, one_kind
from tenantdl.plan.merging import MERGINGS, alone, best_grouping, knee
from tenantdl.plan.provision import Tenant

PROFILES = read_profiles()
THREE = [Tenant("a", 0.5, 5), Tenant("b", 0.8, 10), Tenant("c", 1.0, 20)]


def _kinds(model: str, slos: np.ndarray, rate: float) -> str:
    quote = functions_for(PROFILES[model])
    offers = [quote((Tenant("t", float(slo), rate),)) for slo in slos]
    found = "".join("-" if o is None else "G" if o.accelerated else "C" for o in offers)
    return "".join(kind for kind, _ in itertools.groupby(found))


def test_equivalent_timeout_against_chance() -> None:
    """Batches of two tenants, sent off when the oldest request of either reaches its timeout."""
    rng = np.random.default_rng(0)
    timeouts, rates = np.array([0.2, 0.5]), np.array([4.0, 3.0])
    waits = []
    for _ in range(20_000):
        first_is_other = rng.random() < rates[1] / rates.sum()
        if first_is_other:
            waits.append(min(timeouts[1], rng.exponential(1 / rates[0]) + timeouts[0]))
        else:
            waits.append(timeouts[0])
    assert equivalent_timeout(timeouts, rates) == pytest.approx(np.mean(waits), rel=0.01)
    assert equivalent_timeout(timeouts[:1], rates[:1]) == 0.2
    assert equivalent_timeout(np.array([0.3, 0.3]), rates) == pytest.approx(0.3)


@pytest.mark.parametrize(("model", "ratio"), [("bert", 0.662), ("vgg19", 0.533)])
def test_three_applications_merged_cost_far_less_than_each_alone_on_cpus(
    model: str, ratio: float
) -> None:
    profile = PROFILES[model]
    merged = best_grouping(THREE, functions_for(profile))
    batch = alone(THREE, one_kind(profile, "cpu"))
    assert merged is not None and batch is not None
    assert merged.cost / batch.cost == pytest.approx(ratio, abs=0.001)
    assert len(merged.groups) < 3


@pytest.mark.parametrize("model", ["bert", "vgg19"])
def test_cost_over_target_goes_from_slices_to_cpus_and_back(model: str) -> None:
    assert _kinds(model, np.arange(0.05, 3, 0.05), 20.0) == "GCG"


def test_one_knee_over_the_rate() -> None:
    quote = functions_for(PROFILES["vgg19"])
    at = knee(0.8, quote)
    assert at == pytest.approx(11.5, abs=0.1)
    for rate in np.geomspace(0.1, 200, 40):
        offer = quote((Tenant("t", 0.8, float(rate)),))
        assert offer is not None
        assert offer.accelerated == (rate > at)


def test_the_printed_billing_has_no_crossover() -> None:
    quote = functions_for(PROFILES["vgg19"], "printed")
    offers = [quote((Tenant("t", slo, 20.0),)) for slo in (0.3, 0.5, 1.0, 2.0)]
    assert all(offer is not None and offer.accelerated for offer in offers)


def test_offers_keep_every_target() -> None:
    offer = functions_for(PROFILES["bert"])(tuple(THREE))
    assert offer is not None
    slack = [tenant.slo_s - wait for tenant, wait in zip(THREE, offer.timeouts_s, strict=True)]
    assert slack == pytest.approx([slack[0]] * 3)  # the function's worst latency
    assert slack[0] <= 0.5
    assert functions_for(PROFILES["gpt2"])((Tenant("t", 0.01, 1.0),)) is None


def test_cost_never_falls_with_the_rate_and_never_rises_with_the_target() -> None:
    quote = functions_for(PROFILES["bert"])
    for slo in (0.3, 0.6, 1.2):
        costs = [quote((Tenant("t", slo, rate),)) for rate in (1.0, 3.0, 9.0, 27.0)]
        found = [offer.cost for offer in costs if offer is not None]
        assert found == sorted(found)
    for rate in (1.0, 9.0):
        offers = [quote((Tenant("t", slo, rate),)) for slo in (0.3, 0.6, 1.2)]
        found = [offer.cost for offer in offers if offer is not None]
        assert found == sorted(found, reverse=True)


def test_merging_over_functions_is_no_dearer_than_the_published_one() -> None:
    for seed in range(12):
        rng = np.random.default_rng(seed)
        tenants = [
            Tenant(f"t{n}", float(rng.uniform(0.3, 2)), float(rng.uniform(0.5, 30)))
            for n in range(5)
        ]
        quote = functions_for(PROFILES["vgg19"])
        costs = {}
        for name, merging in MERGINGS.items():
            grouping = merging(tenants, quote)
            assert grouping is not None
            served = sorted(t.name for group, _ in grouping.groups for t in group)
            assert served == [f"t{n}" for n in range(5)]
            costs[name] = grouping.cost
        assert costs["harmonybatch"] <= min(costs.values()) * (1 + 1e-9)
