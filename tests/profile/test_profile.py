"""Profiles: kept, resumed, refused elsewhere; what is worth measuring next; turns pooled."""

from __future__ import annotations

import json
import os
import sqlite3
import struct
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest
from nets import Net

from tenantdl.compile.pipeline import compile_model
from tenantdl.errors import UserError
from tenantdl.exec.stress import KINDS
from tenantdl.machine import this_machine
from tenantdl.predict.footprint import Footprint
from tenantdl.predict.samples import Party
from tenantdl.profile import corun
from tenantdl.profile.corun import company, pooled
from tenantdl.profile.counters import Counters
from tenantdl.profile.measure import measure
from tenantdl.profile.samples import encounters
from tenantdl.profile.solo import Runners, measure_solo
from tenantdl.profile.store import Measured, Solo, Store
from tenantdl.profile.subjects import room, subjects


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    net = Net()
    x = net.op("Conv", net.input(1, 32, 14, 14), net.weight(64, 32, 3, 3), pads=[1] * 4)
    net.output(net.op("Relu", net.op("Conv", x, net.weight(64, 64, 1, 1))))
    path = tmp_path_factory.mktemp("bundles") / "net"
    compile_model(net.model(), path, name="net", variants=1)
    return path


def test_profiles_are_kept(tmp_path: Path) -> None:
    solo = Solo("m/v0/c1", 10, {"50": 5.0}, 0.5, "{}")
    measured = Measured("m/v0/c1", "stress:write", 7, 1.1, 0.01)
    with Store(tmp_path / "p.sqlite") as store:
        store.add_solo(solo)
        store.add("corun", measured)
        store.add("corun", Measured("m/v0/c1", "stress:write", 14, 1.2, 0.005))
        store.add_neighbour("stress:write", "{}")
    with Store(tmp_path / "p.sqlite") as store:
        assert store.solos() == {"m/v0/c1": solo}
        assert [m.slowdown for m in store.measured("corun").values()] == [1.2]
        assert store.measured("before") == {}
        assert store.neighbours() == {"stress:write": "{}"}


def test_profiles_of_another_machine_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "p.sqlite"
    Store(file).__exit__(None, None, None)
    other = {"model": "an abacus"} | dict.fromkeys(("arch", "cores", "caches", "features"), None)
    with sqlite3.connect(file) as db:
        db.execute("update machine set description = ?", (json.dumps(other),))
    with pytest.raises(UserError, match=r"another machine \(model differs\)"):
        Store(file)


@pytest.mark.parametrize("content", [b"not a database at all, and long enough" * 40, None])
def test_what_is_no_profile_is_named(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "p.sqlite"
    if content is None:
        with sqlite3.connect(file) as db:
            db.execute("pragma user_version = 77")
    else:
        file.write_bytes(content)
    with pytest.raises(UserError, match="profile"):
        Store(file)


def test_turns_are_pooled_by_their_numbers() -> None:
    first = pooled("v", "o", [1.0, 1.1, 1.2], None)
    assert (first.turns, first.slowdown) == (3, 1.1)
    assert first.error == pytest.approx(1.2533 * 1.4826 * (0.1 / 1.1) / 3**0.5)
    both = pooled("v", "o", [1.3] * 6, first)
    assert both.turns == 9
    assert both.slowdown == pytest.approx((1.1 * 3 + 1.3 * 6) / 9)
    assert both.error < first.error


def test_what_is_known_worst_is_worth_most(bundle: Path) -> None:
    found = subjects([bundle])
    victims = [subject for subject in found if subject.cores == 1]
    (victim,) = victims
    quiet, loud = (Party(n, 0, 1, 1e6, Footprint(1, s, 0, 0, 0)) for n, s in (("q", 1), ("l", 1e9)))
    parties = {"stress:compute": quiet, "stress:write": loud, victim.name: loud}
    shared = room()
    by_name = {c.name: c for c in company(found)}

    def worth(name: str, *known: Measured) -> float:
        seen = {(m.victim, m.other): m for m in known}
        return corun._worths(by_name[name], victims, parties, seen, shared)[victim.name]

    assert worth("stress:write") > worth("stress:compute") > 0
    vague = Measured(victim.name, "stress:write", 7, 1.1, 0.03)
    assert worth("stress:write", vague) == 0.03
    assert worth("stress:write", Measured(victim.name, "stress:write", 99, 1.1, 0.001)) == 0


def test_what_ran_before_is_a_sample(tmp_path: Path) -> None:
    party = Party("a", 0, 1, 1e6, Footprint(1, 2, 3, 4, 5))
    other = msgspec.structs.replace(party, model="b")
    with Store(tmp_path / "p.sqlite") as store:
        for name, what in (("a@1/v0/c1", party), ("b@1/v0/c1", other)):
            text = msgspec.json.encode(what).decode()
            store.add_solo(Solo(name, 10, {"50": 1e6}, 0.5, text))
        store.add("before", Measured("a@1/v0/c1", "b@1/v0/c1", 7, 1.02, 0.001))
        store.add("before", Measured("b@1/v0/c1", "a@1/v0/c1", 7, 1.5, 0.2))  # known too badly
        ((sample,),) = encounters(store)
    assert (sample.victim, sample.others, sample.before) == (party, (), other)
    assert sample.slowdown == 1.02


def test_counters_become_rates_of_parties(bundle: Path, tmp_path: Path) -> None:
    files = []
    for value in (1, 2, 30, 4):
        reader, writer = os.pipe()
        os.write(writer, 50 * struct.pack("=QQQ", 1000 * value, 5, 5))
        os.close(writer)
        files.append(reader)
    counters = Counters(files, lambda file, request, zero: None)

    def solo() -> list[Solo]:
        with Store(tmp_path / "p.sqlite") as store:
            measure_solo(store, subjects([bundle]), Runners(), counters=counters)
            return list(store.solos().values())

    with ThreadPoolExecutor(1) as thread:  # which stays pinned
        solos = thread.submit(solo).result()
    counters.close()
    assert solos
    for one in solos:
        counted = msgspec.json.decode(one.party, type=Party).counted
        alone = one.quantiles_ns["50"]
        assert counted == pytest.approx((64 * 30_000 / alone, 64 * 4_000 / alone))


@pytest.mark.skipif(len(this_machine().cores) < 2, reason="one core: nobody to run beside")
def test_a_campaign_measures_within_its_time_and_goes_on_where_it_was(
    bundle: Path, tmp_path: Path
) -> None:
    file = tmp_path / "p.sqlite"
    first = measure([bundle], (), 0.0, file)
    assert {solo.subject.rsplit("/", 1)[1] for solo in first.solos} == {"c1", "c2"}
    assert first.corun == []
    for solo in first.solos:
        assert list(solo.quantiles_ns.values()) == sorted(solo.quantiles_ns.values())
    told: list[str] = []
    second = measure([bundle], (), 4.0, file, told.append)
    assert not any(text in {solo.subject for solo in first.solos} for text in told)
    assert second.solos == first.solos
    assert 1 <= len(second.corun) <= len(KINDS) + 1
    with Store(file) as store:
        assert set(store.neighbours()) == {f"stress:{kind}" for kind in KINDS}
        (samples, *_) = encounters(store)
        assert samples[0].victim.model == "net"
        assert samples[0].slowdown > 0.3
    assert len(measure([bundle], (7,), 0.0, file).solos) == 0
