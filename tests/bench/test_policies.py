"""`bench policies`: the daemon under many policies, beside the simulator. Lanes have no kernels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from tenantdl.bench import in_service, policies
from tenantdl.bench.envelope import read_results
from tenantdl.bench.in_service import Block, _by_model, _outside, _parts, _slower, calibrated
from tenantdl.bench.machine import write
from tenantdl.cli.bench import COMPARED
from tenantdl.ids import ModelId
from tenantdl.load.issuer import OK, Sample
from tenantdl.load.workload import Workload, parse_workload
from tenantdl.machine import usable_cores
from tenantdl.sim.machines import load_machine
from tenantdl.units import Ns
from tests.exec.fake_lane_backend import fake_bundle

HERE = Path(__file__).parent
TEXT = """
name = "{name}"
bundles = "{bundles}"
[machine]
cores = {cores}
[load]
rate = {rate}
duration_s = 1
arrivals = "{arrivals}"
[[tenant]]
name = "quick"
bundle = "fake:4:100"
qos_ms = 5000
share = 3
[[tenant]]
name = "slow"
bundle = "fake:8:1000"
qos_ms = 9000
"""
MACHINE = """
name = "here"
source = "test"
cores = 1
domain_cores = 1
socket_cores = 1
bandwidth_gbs = 10
handover_us = 50
boundary_us = 2
resize_us = 0
conflict_us = 0
migrate_us = 0
"""


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> object:
    monkeypatch.setenv("PYTHONPATH", f"{HERE.parent / 'exec'}:{HERE.parents[1]}")
    fake_bundle(tmp_path, "quick", 4, 100)
    fake_bundle(tmp_path, "slow", 8, 1000)

    def workload(name: str, cores: Sequence[int], rate: int, arrivals: str) -> Workload:
        text = TEXT.format(
            name=name, bundles=tmp_path, cores=list(cores), rate=rate, arrivals=arrivals
        )
        return parse_workload(text)

    return workload


def test_rows_of_the_daemon_lie_beside_the_simulators(make: object, tmp_path: Path) -> None:
    machine, out = tmp_path / "here.toml", tmp_path / "p.json"
    machine.write_text(MACHINE)
    heard: list[tuple[str, float]] = []
    rows = policies.run(
        [make("one", usable_cores()[:1], 30, "poisson")],  # type: ignore[operator]
        policies="planaria,tenantdl",
        machine=str(machine),
        json=out,
        backend="fake_lane_backend",
        progress=lambda *phase: heard.append(phase),
    )
    assert heard == [("one: planaria", 0.0), ("one: tenantdl", 0.5)]
    assert [(r["policy"], r["tenant"]) for r in rows[:3]] == [
        ("planaria", "quick"),
        ("planaria", "slow"),
        ("planaria", "all"),
    ]
    assert all(row["label"] == "measured" and row["attainment"] is not None for row in rows)
    # Eight segments of a millisecond.
    assert all(r["simulated_p50_ms"] >= 8 for r in rows if r["tenant"] == "slow")
    assert all(0 <= r["simulated_attainment"] <= 1 for r in rows)
    assert read_results(out).results == rows


def test_a_machine_is_calibrated_by_what_it_serves(make: object, tmp_path: Path) -> None:
    path = tmp_path / "here.toml"
    path.write_text(MACHINE)
    # So few that they hardly meet: what a request takes is seen, not for whom it waits.
    workload = make("one", usable_cores()[:1], 8, "poisson")  # type: ignore[operator]
    found = calibrated(load_machine(str(path)), workload, backend="fake_lane_backend")
    write(found, path)
    assert load_machine(str(path)) == found
    # Two models by the names that the simulator has for them; nothing runs faster than it sleeps.
    assert sorted(found.slower) == ["fake:4:100", "fake:8:1000"]
    assert all(factor >= 1 for factor in found.slower.values())
    assert found.request_p95_us >= found.request_us > 0

    rows = [policies.simulated(workload, machine) for machine in (str(path), _plain(tmp_path))]
    slow = [row["slow"]["simulated_p50_ms"] for row in rows]
    assert slow[0] - slow[1] == pytest.approx(
        8 * (found.slower["fake:8:1000"] - 1) + found.request_us / 1000, rel=0.5
    )


def test_what_blocks_take_is_their_mean_on_one_core_and_on_more() -> None:
    # Most as long as was said, one interrupted: queues feel it.
    blocks = [Block(10, 10, wide=False)] * 3 + [Block(50, 10, wide=False)]
    assert _slower(blocks) == 2
    slower = {(ModelId("a"), False): 2.0, (ModelId("b"), True): 3.0, (ModelId("a"), True): 4.0}
    assert _by_model(slower, wide=False) == {"a": 2.0, "b": 3.0}
    assert _by_model(slower, wide=True) == {"a": 4.0, "b": 3.0}


def test_a_spread_is_told_by_equal_parts_that_keep_the_mean() -> None:
    spread = [0.8] * 30 + [1.0] * 8 + [2.0] + [5.0]
    assert _parts(spread) == tuple(spread)  # forty are forty parts
    halves = _parts(spread * 2)
    assert len(halves) == 40
    assert sum(halves) / 40 == pytest.approx(sum(spread) / 40)
    assert _parts([3.0, 1.0]) == (1.0, 3.0)


def test_outside_is_what_is_left_of_each_request_and_warm_up_counts_for_nothing() -> None:
    # In the order of their answers; the second was sent later than the third was due.
    answers = [(0, 0, 30, OK), (2, 1, 50, OK), (1, 5, 90, OK), (3, 0, 7, 503)]
    samples = [Sample(0, Ns(at), Ns(delay), Ns(took), how) for at, delay, took, how in answers]
    other = Sample(1, Ns(0), Ns(0), Ns(1000), OK)
    assert _outside([900, 20, 40, 60], [other, *samples], 0) == [90 - 60, 50 - 40, 30 - 20]


def test_bytes_count_although_a_workload_has_a_published_life_too(
    make: object, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    workload = make("one", usable_cores()[:1], 8, "poisson")  # type: ignore[operator]
    tenants = tuple(msgspec.structs.replace(t, profile="googlenet") for t in workload.tenant)
    both = msgspec.structs.replace(workload, tenant=tenants)
    asked = []
    monkeypatch.setattr(in_service, "moving", lambda *which: asked.append(which[2].profile) or 0)
    calibrated(load_machine(_plain(tmp_path)), both, backend="fake_lane_backend")
    assert asked == [None]


def _plain(folder: Path) -> str:
    path = folder / "plain.toml"
    path.write_text(MACHINE)
    return str(path)


@pytest.mark.slow
@pytest.mark.parametrize("policy", COMPARED)
def test_the_daemon_runs_every_policy_on_three_workloads(make: object, policy: str) -> None:
    cores = usable_cores()
    rows = policies.run(
        [
            make("one", cores[:1], 30, "poisson"),  # type: ignore[operator]
            make("two", cores[:2], 60, "poisson"),  # type: ignore[operator]
            make("bursts", cores[:2], 40, "gamma"),  # type: ignore[operator]
        ],
        policies=policy,
        backend="fake_lane_backend",
    )
    every = [row for row in rows if row["tenant"] == "all"]
    assert [row["workload"] for row in every] == ["one", "two", "bursts"]
    assert all(row["answered"] > 0 for row in every)
