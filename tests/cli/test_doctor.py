"""`tenantdl doctor`: findings on machines that lack something."""

from __future__ import annotations

import dataclasses
import shutil

import pytest

from tenantdl.cli.doctor import Check, checks
from tenantdl.ids import CoreId
from tenantdl.machine import Machine, this_machine
from tests.cli.conftest import Cli


def _found(machine: Machine) -> dict[str, Check]:
    return {check.what: check for check in checks(machine)}


def test_shows_a_row_a_check(cli: Cli) -> None:
    _, out, _ = cli("doctor")
    shown = [" ".join(line.split()) for line in out.splitlines()]
    for check in checks(this_machine()):
        assert any(line.startswith(f"{check.state} {check.what} ") for line in shown)


def test_failed_check_is_exit_1(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    code, out, _ = cli("doctor")
    assert code == 1
    assert "none on PATH" in out


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
