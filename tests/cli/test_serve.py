"""`tenantdl serve`: the workload file goes to the daemon; what is wrong with it is one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tenantdl import daemon
from tenantdl.daemon.front import Listening
from tests.cli.conftest import Cli

TEXT = "[server]\nport = 8123\n[[tenant]]\nname = 'ocr'\nbundle = 'b'\nqos_ms = 15\n"


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the daemon was asked to serve."""
    asked: dict[str, Any] = {}

    def serve(workload: Any, **options: Any) -> None:
        asked.update(options, workload=workload)
        options["on_listening"](Listening("http://127.0.0.1:1", None))

    monkeypatch.setattr(daemon, "serve", serve)
    return asked


@pytest.fixture
def workload(tmp_path: Path) -> Path:
    file = tmp_path / "w.toml"
    file.write_text(TEXT)
    return file


def test_serves_the_workload_and_says_where(
    cli: Cli, served: dict[str, Any], workload: Path, tmp_path: Path
) -> None:
    code, _, err = cli("serve", str(workload), "--journal", str(tmp_path / "j"))
    assert code == 0
    assert err == "Serving ocr on http://127.0.0.1:1 (Ctrl-C stops)\n"
    assert served["workload"].server.port == 8123
    assert served["journal"] == tmp_path / "j"


def test_port_on_the_command_line_wins(cli: Cli, served: dict[str, Any], workload: Path) -> None:
    assert cli("serve", str(workload), "--port", "0")[0] == 0
    assert served["workload"].server.port == 0


def test_bad_workload_is_one_line(cli: Cli, served: dict[str, Any], workload: Path) -> None:
    workload.write_text(TEXT.replace("qos_ms", "qos"))
    code, _, err = cli("serve", str(workload))
    assert (code, err.count("\n"), served) == (2, 1, {})
    assert "did you mean 'qos_ms'" in err


def test_a_supervised_daemon_is_a_command_of_its_own(
    cli: Cli, served: dict[str, Any], workload: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    class Supervisor:
        def __init__(self, command: list[str], url: str | None) -> None:
            asked.extend((command[1:], url))

        def run(self) -> int:
            return 0

    monkeypatch.setattr("tenantdl.daemon.supervisor.Supervisor", Supervisor)
    assert cli("serve", str(workload), "--supervise")[0] == 0
    command = ["-m", "tenantdl", "serve", str(workload), "--port", "8123"]
    assert asked == [command, "http://127.0.0.1:8123/v2/health/live"]
    assert served == {}
