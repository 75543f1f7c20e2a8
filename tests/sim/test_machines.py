"""Machines as data."""

from __future__ import annotations

from pathlib import Path

import pytest

from tenantdl.errors import UserError
from tenantdl.sim.machines import known_machines, load_machine


@pytest.mark.parametrize("name", known_machines())
def test_declared_machines_are_whole(name: str) -> None:
    machine = load_machine(name)
    assert machine.name == name
    assert machine.cores % machine.domain_cores == 0
    assert machine.cores % machine.socket_cores == 0
    domains = machine.domains()
    assert [core for domain in domains for core in domain] == list(range(machine.cores))
    assert len(machine.lanes()) == machine.cores


def test_sizes_that_were_asked_for_are_there() -> None:
    assert {load_machine(name).cores for name in known_machines()} == {8, 16, 32, 64, 128}
    assert load_machine("2x32-core").socket_cores == 32


def test_bad_machines_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="machine '65-core' is unknown; known: 128-core"):
        load_machine("65-core")
    file = tmp_path / "m.toml"
    file.write_text('name = "m"\ncors = 3\n')
    with pytest.raises(UserError, match=r"m\.toml: not a machine: .*cors"):
        load_machine(str(file))
