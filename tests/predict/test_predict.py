"""Predictors on data whose law is known: monotone, calibrated, better than the baselines."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import msgspec
import numpy as np
import pytest

from tenantdl.predict.export import LEVELS, Tables
from tenantdl.predict.features import MONOTONE, NAMES, matrix, slowdowns, vector
from tenantdl.predict.footprint import Footprint
from tenantdl.predict.model import PREDICTORS, Boosted, Linear, Roofline, Undisturbed
from tenantdl.predict.samples import Party, Room, Sample, mix_of

ROOM = Room(cores=8, bandwidth=100.0, cache_bytes=32e6, core_bandwidth=20.0)


def party(model: str, stream: float, cores: int = 1, variant: int = 0) -> Party:
    """A party that streams `stream` bytes/ns."""
    return Party(model, variant, cores, 1e6, Footprint(1e8, stream * 1e6, 0.0, 1e6, 1e5))


def samples(count: int, seed: int) -> list[Sample]:
    """A victim's slowdown is 1 + its own stream × the others' / 1000, and 1 % of noise."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        victim = party("v", float(rng.uniform(1, 15)), variant=int(rng.integers(2)))
        rates = rng.uniform(0, 40, int(rng.integers(1, 4))).tolist()
        others = tuple(party(f"m{int(rate) // 10}", rate) for rate in rates)
        slow = (1 + victim.stream * sum(rates) / 1000) * (1 + 0.01 * rng.standard_normal())
        found.append(Sample(mix_of("v", [o.model for o in others]), victim, others, float(slow)))
    return found


@pytest.fixture(scope="module")
def boosted() -> Boosted:
    return Boosted(samples(600, 1), ROOM, 0)


def error(predictor: object, test: list[Sample]) -> float:
    predicted = predictor.predict(test)  # type: ignore[attr-defined]
    return float(np.mean(np.abs(predicted / slowdowns(test) - 1)))


def test_features_have_names_and_rates_are_over_what_the_machine_has() -> None:
    sample = Sample("x", party("v", 10.0), (party("a", 20.0), party("b", 5.0, cores=2)), 1.0)
    named = dict(zip(NAMES, vector(sample, ROOM), strict=True))
    assert len(MONOTONE) == len(NAMES) == len(set(NAMES))
    assert named["victim_stream"] == pytest.approx(0.10)
    assert named["others_stream"] == pytest.approx(0.25)
    assert named["all_stream"] == pytest.approx(0.35)
    assert named["others_shared"] == pytest.approx(3e6 / 32e6)
    assert named["others_cores"] == pytest.approx(3 / 8)
    assert named["victim_core_rate"] == pytest.approx(10 / 20)
    assert matrix([], ROOM).shape == (0, len(NAMES))


def test_ours_learns_what_the_proxy_cannot_say(boosted: Boosted) -> None:
    test = samples(200, 2)
    ours, linear = error(boosted, test), error(Linear(samples(600, 1), ROOM, 0), test)
    assert ours < 0.03
    assert ours < linear / 2
    assert error(Undisturbed([], ROOM, 0), test) > ours


def test_more_traffic_never_makes_a_prediction_smaller(boosted: Boosted) -> None:
    victim = party("v", 9.0)
    rates = np.linspace(0, 120, 60).tolist()
    row = [Sample("x", victim, (party("a", rate),), 1.0) for rate in rates]
    assert (np.diff(boosted.predict(row)) >= -1e-9).all()


def test_quantiles_cover_what_they_say_on_mixes_not_seen(boosted: Boosted) -> None:
    test = samples(400, 3)
    covered = float(np.mean(slowdowns(test) <= boosted.quantile(test, 0.95)))
    assert covered >= 0.9
    assert (boosted.quantile(test, 0.95) < 1.15 * boosted.predict(test)).all()
    assert (boosted.quantile(test, 0.95) >= boosted.quantile(test, 0.5)).all()


def test_noise_is_not_learned(boosted: Boosted) -> None:
    def noise(seed: int) -> list[Sample]:
        rng = np.random.default_rng(seed)
        found = samples(200, seed)
        return [
            msgspec.structs.replace(s, slowdown=float(1 + 0.01 * rng.standard_normal()))
            for s in found
        ]

    learned = Boosted(noise(5), ROOM, 0)
    assert boosted.trust > 0.9
    assert learned.trust < 0.3
    assert error(learned, noise(6)) < 1.05 * error(Undisturbed([], ROOM, 0), noise(6))


def test_what_ran_before_is_learned() -> None:
    """A cold start costs 1 % for a megabyte that the other left in the caches."""
    rng = np.random.default_rng(4)
    train = []
    for megabytes in rng.uniform(0, 8, 200).tolist():
        other = Party("o", 0, 1, 1e6, Footprint(1e8, 0.0, 0.0, megabytes * 1e6, 0.0))
        slow = 1 + 0.01 * megabytes
        train.append(Sample("v<o", party("v", 5.0), (), slow, before=other))
    learned = Boosted(train, ROOM, 0)
    assert train[0].models() == {"v", "o"}
    cold = learned.predict(sorted(train, key=lambda s: s.slowdown))
    assert (np.diff(cold) >= -1e-9).all()
    assert float(np.abs(cold - np.sort(slowdowns(train))).max()) < 0.01
    undisturbed = Sample("v", party("v", 5.0), (), 1.0)
    assert learned.predict([undisturbed]) == pytest.approx([1.0], abs=0.005)


def counted(samples: list[Sample], rate: Callable[[Party], float]) -> list[Sample]:
    """With counters that show misses of `rate`."""

    def seen(party: Party) -> Party:
        return msgspec.structs.replace(party, counted=(2 * rate(party), rate(party)))

    return [
        msgspec.structs.replace(s, victim=seen(s.victim), others=tuple(map(seen, s.others)))
        for s in samples
    ]


def test_counters_tell_what_footprints_do_not() -> None:
    """Footprints are all alike; what slows the victim down is what the neighbour misses."""
    rng = np.random.default_rng(5)
    hidden = {f"m{i}": float(rng.uniform(0, 50)) for i in range(40)}
    plain = [
        Sample(mix_of("v", [name]), party("v", 5.0), (party(name, 9.0),), 1 + rate / 50)
        for name, rate in hidden.items()
        for _ in range(5)
    ]
    informed = counted(plain, lambda party: hidden.get(party.model, 1.0))
    assert error(Boosted(plain, ROOM, 0), plain) > 0.1
    learned = Boosted(informed, ROOM, 0)
    assert error(learned, informed) < 0.03
    rising = sorted(informed, key=lambda s: s.slowdown)
    assert (np.diff(learned.predict(rising)) >= -1e-9).all()
    assert error(Linear(informed, ROOM, 0), informed) < error(Linear(plain, ROOM, 0), plain) / 2


def test_counters_of_some_are_no_feature() -> None:
    whole = counted(samples(1, 1), lambda party: party.stream)[0]
    named = dict(zip(NAMES, vector(whole, ROOM), strict=True))
    assert named["others_misses"] == pytest.approx(sum(o.stream for o in whole.others) / 100)
    assert named["victim_accesses"] == pytest.approx(2 * whole.victim.stream / 100)
    part = msgspec.structs.replace(
        whole, victim=msgspec.structs.replace(whole.victim, counted=None)
    )
    named = dict(zip(NAMES, vector(part, ROOM), strict=True))
    assert np.isnan(named["others_misses"]) and np.isnan(named["victim_misses"])


def test_a_roofline_stretches_the_victims_memory_part() -> None:
    """Half of its core's rate, 150 wanted of 100: 1 + 0.5 · 0.5."""
    sample = Sample("x", party("v", 10.0), (party("a", 140.0),), 1.0)
    assert Roofline([], ROOM, 0).predict([sample]) == pytest.approx([1.25])


def test_the_proxy_has_versions_by_level() -> None:
    """Variant 1 is slower alone and suffers less: chosen at high levels only."""
    train = [
        Sample(
            f"{rate}",
            Party("v", variant, 1, 1e6 * (1 + 0.1 * variant), Footprint(1, 1e6, 0, 0, 0)),
            (party("a", rate),),
            1 + rate / 50 / (1 + 3 * variant),
        )
        for rate in np.linspace(0, 60, 40).tolist()
        for variant in (0, 1)
    ]
    linear = Linear(train, ROOM, 0)
    assert linear.choose(train[:2]) == 0
    assert linear.choose(train[-2:]) == 1


def test_tables_rise_from_one_and_agree_with_the_predictor(boosted: Boosted) -> None:
    variants = {"v": [party("v", 3.0), party("v", 12.0, variant=1)]}
    train = samples(600, 1)
    tables = Tables(boosted, variants, train, ROOM)
    exported = tables.export(variants)["v"]
    for pressure, table in exported:
        assert pressure > 0
        assert len(table) == LEVELS
        assert table[0] == 1000
        assert list(table) == sorted(table)
    assert exported[1][0] == pytest.approx(4 * exported[0][0], rel=0.02)
    assert exported[1][1][-1] > exported[0][1][-1]
    asked = [Sample("x", variants["v"][1], (party("a", 30.0),), 1.36)]
    assert tables.predict(asked) == pytest.approx([1.36], abs=0.06)


def test_predictors_of_no_company_say_one() -> None:
    alone = [Sample("x", party("v", 10.0), (), 1.0)]
    for name in ("none", "roofline"):
        assert PREDICTORS[name]([], ROOM, 0).predict(alone) == pytest.approx([1.0])


def test_serving_does_not_load_the_learner() -> None:
    code = "import sys, tenantdl.daemon.engine; print('xgboost' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
