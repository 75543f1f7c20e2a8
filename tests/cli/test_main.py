"""The command: help, version, and how errors become one line and an exit code."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import tenantdl
from tenantdl import zoo
from tests.cli.conftest import Cli

COMMANDS = [
    "compile",
    "run",
    "inspect",
    "doctor",
    "zoo",
    "bench",
    "status",
    "top",
    "trace",
    "schema",
]


def test_help_lists_the_commands(cli: Cli) -> None:
    code, out, _ = cli("--help")
    assert code == 0
    assert all(f"\n  {command} " in out for command in COMMANDS)


def test_version(cli: Cli) -> None:
    assert cli("--version") == (0, f"tenantdl {tenantdl.__version__}\n", "")


def test_bad_input_is_one_line_and_exit_2(cli: Cli, tmp_path: Path) -> None:
    code, out, err = cli("inspect", str(tmp_path))
    assert (code, out) == (2, "")
    where = tmp_path / "manifest.json"
    assert err == f"tenantdl: error: {where}: not a bundle: No such file or directory\n"


def test_wrong_usage_is_exit_2(cli: Cli) -> None:
    code, _, err = cli("compile")
    assert code == 2
    assert "Missing argument 'MODEL'" in err


def _raise(error: BaseException) -> None:
    raise error


def test_unexpected_errors_are_one_line_unless_debugged(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zoo, "path", lambda name: _raise(ValueError("odd\nthing")))
    code, _, err = cli("zoo", "path", "x")
    assert code == 1
    assert err == "tenantdl: error: ValueError: odd thing (tenantdl --debug shows where)\n"
    code, _, err = cli("--debug", "zoo", "path", "x")
    assert code == 1
    assert err.startswith("Traceback (most recent call last)")


def test_interruption(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zoo, "path", lambda name: _raise(KeyboardInterrupt()))
    assert cli("zoo", "path", "x")[0] == 130


def test_module_can_be_run_and_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from tenantdl.cli.main import run; run(['--help']);"
        "assert not {'onnx', 'tvm', 'tvm_ffi', 'matplotlib', 'starlette'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    module = [sys.executable, "-m", "tenantdl", "--version"]
    answer = subprocess.run(module, check=True, capture_output=True, text=True)
    assert answer.stdout == f"tenantdl {tenantdl.__version__}\n"
