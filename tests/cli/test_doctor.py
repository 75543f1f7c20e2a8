"""`tenantdl doctor`: findings on machines that lack something."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from pathlib import Path

import pytest

from tenantdl.cli import doctor_machine, doctor_noise
from tenantdl.cli.doctor import Check, checks
from tenantdl.cli.doctor_check import cores_in
from tenantdl.ids import CoreId
from tenantdl.machine import Machine, this_machine, usable_cores
from tests.cli.conftest import Cli


def _found(machine: Machine) -> dict[str, Check]:
    return {check.what: check for check in checks(machine)}


def test_shows_a_row_a_check(cli: Cli) -> None:
    _, out, _ = cli("doctor", "--quick")
    shown = [" ".join(line.split()) for line in out.splitlines()]
    for check in checks(this_machine()):
        assert any(line.startswith(f"{check.state} {check.what} ") for line in shown)


def test_failed_check_is_exit_1(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    code, out, _ = cli("doctor", "--quick")
    assert code == 1
    assert "none on PATH" in out


def test_results_for_programs(cli: Cli, tmp_path: Path) -> None:
    code, out, _ = cli("doctor", "--json", "-")
    rows = json.loads(out)["results"]
    assert {"experiment", "what", "state", "found", "advice"} == set(rows[0])
    assert {"stolen time", "interruptions"} & {row["what"] for row in rows}
    assert cli("doctor", "--quick", "--json", str(tmp_path / "d.json"))[0] == code
    assert len(json.loads((tmp_path / "d.json").read_bytes())["results"]) < len(rows)


def test_a_poor_machine_is_warned_about() -> None:
    machine = this_machine()
    one = dataclasses.replace(machine, cores=(CoreId(0),), features=frozenset())
    found = _found(one)
    assert found["cores"].state == "warn"
    assert found["vector unit"].state == "warn"


@pytest.mark.parametrize(
    ("flags", "expected"),
    [({"avx2", "fma"}, "AVX2"), ({"avx2", "avx512f", "avx512_vnni"}, "AVX-512 avx512_vnni")],
)
def test_the_widest_vector_unit_is_named(flags: set[str], expected: str) -> None:
    machine = dataclasses.replace(this_machine(), features=frozenset(flags))
    assert _found(machine)["vector unit"].found == expected


@pytest.mark.parametrize(
    ("quota", "stat", "state"),
    [
        (None, "nr_throttled 0", "ok"),
        (2.0, "nr_throttled 0", "ok"),
        (2.5, "nr_throttled 0", "warn"),
        (0.5, "", "warn"),
        (2.0, "usage_usec 9\nnr_throttled 7", "warn"),
    ],
)
def test_quotas(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, quota: float | None, stat: str, state: str
) -> None:
    (tmp_path / "cpu.stat").write_text(stat)
    monkeypatch.setattr(doctor_machine, "_CGROUP_STAT", tmp_path / "cpu.stat")
    monkeypatch.setattr(doctor_machine, "quota_cores", lambda: quota)
    assert _found(this_machine())["CPU quota"].state == state


@pytest.mark.parametrize(("governor", "state"), [("performance", "ok"), ("powersave", "warn")])
def test_governors(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, governor: str, state: str
) -> None:
    (tmp_path / "cpu0" / "cpufreq").mkdir(parents=True)
    (tmp_path / "cpu0" / "cpufreq" / "scaling_governor").write_text(governor + "\n")
    (tmp_path / "cpu0" / "topology").mkdir()
    (tmp_path / "cpu0" / "topology" / "thread_siblings_list").write_text("0,4\n")
    monkeypatch.setattr(doctor_machine, "_CPU", tmp_path)
    machine = dataclasses.replace(this_machine(), cores=(CoreId(0),))
    found = _found(machine)
    assert (found["governor"].state, found["governor"].found) == (state, governor)
    assert found["hyper-threads"].found.startswith("1 ")


def test_pressure_and_steal(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for kind, share in (("cpu", "55.10"), ("memory", "0.00"), ("io", "0.10")):
        (tmp_path / kind).write_text(f"some avg10={share} avg60=1.00 avg300=0 total=5\nfull …\n")
    (tmp_path / "stat").write_text("cpu 100 0 100 700 0 0 0 100 0 0\ncpu0 1 2\n")
    monkeypatch.setattr(doctor_noise, "_PRESSURE", tmp_path)
    monkeypatch.setattr(doctor_noise, "_STAT", tmp_path / "stat")
    found = {c.what: c for c in doctor_noise.checks(usable_cores()[:1], probe_s=0.01)}
    assert found["pressure"].state == "warn" and "wait for cpu:" in found["pressure"].advice
    assert found["stolen time"].found == "0.0% now, 10.0% since boot"
    assert found["stolen time"].state == "warn"


def test_the_probe_leaves_the_affinity_as_it_was() -> None:
    before = os.sched_getaffinity(0)
    found = doctor_noise.probe(usable_cores()[0], 0.02)
    assert os.sched_getaffinity(0) == before
    assert 0 <= found.lost <= 1 and found.longest >= 0


def test_lists_of_cores() -> None:
    assert [cores_in(text) for text in ("0", "0-3,8", "1,3", "")] == [1, 5, 2, 0]
