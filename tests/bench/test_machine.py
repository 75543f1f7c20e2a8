"""`profile --machine`: a real lane without work, and a file that the simulator reads."""

from __future__ import annotations

from pathlib import Path

import pytest

from tenantdl.cli.main import run
from tenantdl.machine import usable_cores
from tenantdl.sim.machines import load_machine


def test_this_machine_is_measured_and_simulated(tmp_path: Path) -> None:
    out = tmp_path / "here.toml"
    assert run(["profile", "--machine", "-o", str(out), "--rounds", "5"]) == 0
    machine = load_machine(str(out))
    assert machine.cores == len(usable_cores())
    assert machine.source.startswith("measured: ")
    assert machine.boundary_us > 0 and machine.handover_us > 0
    assert machine.bandwidth_gbs > 0
    workload = tmp_path / "w.toml"
    workload.write_text(
        'name = "one"\n[load]\nrate = 5\n[[tenant]]\nname = "m"\nbundle = "m.bundle"\n'
        'profile = "mobilenet_v2"\nqos_ms = 40\n'
    )
    assert run(["simulate", str(workload), "--machine", str(out), "--requests", "20"]) == 0


def test_something_has_to_be_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["profile"]) == 2
    assert "give bundles, or --machine" in capsys.readouterr().err
