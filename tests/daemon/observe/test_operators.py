"""What operators see of a daemon with tokens, and nobody else; its repository by command."""

from __future__ import annotations

import shutil
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tenantdl.daemon import RunningDaemon
from tenantdl.errors import UserError
from tenantdl.load.client import Client
from tenantdl.load.workload import parse_workload
from tests.cli.conftest import Cli, cli
from tests.daemon.test_repository import ALICE, ROOT, TENANTS, daemon, on_one_core, put

__all__ = ["cli"]
FAKES = Path(__file__).parents[2] / "exec"
PRIVATE = ("/status", "/status?since=0", "/metrics", "/trace")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository of three models."""
    for name in ("ours", "hers", "nobodys"):
        put(tmp_path / "models", name, 1, 4)
    return tmp_path / "models"


@pytest.fixture
def running(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunningDaemon]:
    monkeypatch.setenv("PYTHONPATH", f"{FAKES}:{FAKES.parents[1]}")
    workload = on_one_core(parse_workload(TENANTS), root)
    with daemon(workload, tmp_path / "journal") as running:
        yield running


def get(url: str, token: str | None) -> int:
    headers = {"authorization": f"Bearer {token}"} if token else {}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=30) as it:
            return int(it.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_tenants_are_shown_to_operators_alone(running: RunningDaemon) -> None:
    for path in PRIVATE:
        codes = [get(running.url + path, token) for token in (None, "wrong", ALICE, ROOT)]
        assert codes == [401, 401, 403, 200], path
    # The page itself says nothing of anybody, and has the field to put a token in.
    for path in ("/", "/dashboard/", "/dashboard/dashboard.js"):
        assert get(running.url + path, None) == 200
    status = Client(running.url, ROOT).status()
    assert [tenant.name for tenant in status.tenants] == ["alice", "bob"]
    with pytest.raises(UserError, match=r"HTTP 401: .* \(give --token\)"):
        Client(running.url).status()


def test_models_come_and_go_by_command(cli: Cli, running: RunningDaemon, root: Path) -> None:
    at = ("--url", running.url, "--token", ROOT)
    code, out, err = cli("unload", "hers", *at)
    assert (code, out) == (0, "hers is unloaded\n"), err
    names = {model.name for model in Client(running.url, ROOT).status().models}
    assert names == {"ours"}
    code, out, _ = cli("load", "hers", *at)
    assert code == 0 and out.splitlines() == ["hers is loaded", "  version 1: READY"]
    put(root, "hers", 2, 4)
    code, out, _ = cli("load", "hers", *at)
    assert code == 0 and "  version 2: READY" in out.splitlines()
    code, out, _ = cli("infer", "hers", "--random", "1", "--tenant", "alice", *at)
    assert code == 0
    shutil.rmtree(root / "hers")
    code, _, err = cli("load", "none", *at)
    assert code == 2 and err.count("\n") == 1
    code, _, err = cli("load", "ours", "--url", running.url, "--token", ALICE)
    assert code == 2 and "HTTP 403" in err
