"""The commands for operators, against a daemon in a subprocess with lanes that only sleep."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest

from tenantdl.bench.envelope import Envelope
from tenantdl.daemon import RunningDaemon, running_daemon
from tenantdl.load.status import Status
from tenantdl.load.workload import parse_workload
from tenantdl.machine import usable_cores
from tests.cli.conftest import Cli
from tests.exec.fake_lane_backend import fake_bundle

FAKES = Path(__file__).parents[1] / "exec"
SEGMENTS = 6


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    folder = tmp_path_factory.mktemp("daemon")
    fake_bundle(folder, "quick", SEGMENTS, 200)
    text = f"""
        name = "test"
        bundles = "{folder}"
        [machine]
        cores = [{usable_cores()[0]}]
        [[tenant]]
        name = "q"
        bundle = "fake:{SEGMENTS}:200"
        qos_ms = 10000
        """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", f"{FAKES}:{FAKES.parents[1]}")
        with running_daemon(
            parse_workload(text), journal=folder / "journal", backend="fake_lane_backend"
        ) as running:
            yield running


@pytest.fixture
def at(daemon: RunningDaemon) -> tuple[str, str]:
    return "--url", daemon.url


def infer(cli: Cli, at: tuple[str, str], folder: Path, value: float) -> float:
    np.savez(folder / "x.npz", x=np.array([[value, 0]], np.float32))
    files = ("--input", str(folder / "x.npz"), "--output", str(folder / "y.npz"))
    code, _, err = cli("infer", "quick", *files, "--tenant", "q", *at)
    assert code == 0, err
    with np.load(folder / "y.npz") as outputs:
        return float(outputs["y"][0, 0])


def test_infer_from_a_file_and_from_random_values(
    cli: Cli, at: tuple[str, str], tmp_path: Path
) -> None:
    assert infer(cli, at, tmp_path, 4) == 4 + SEGMENTS
    code, out, err = cli("infer", "quick", "--random", "1", *at)
    assert code == 0 and out.split()[6:9] == ["y", "float32", "1x2"] and err.endswith("ms\n")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("infer", "none", "--random", "1"), "HTTP 404: Request for unknown model: 'none'"),
        (
            ("infer", "quick", "--random", "1", "--tenant", "eve"),
            "HTTP 400: tenant 'eve' is not yours",
        ),
        (("infer", "quick", "--random", "1", "--shape", "z=1"), "unknown input 'z'"),
        (("infer", "quick", "--random", "1", "--shape", "x=1x3"), "HTTP 400: no plan for input"),
    ],
)
def test_what_the_daemon_refuses_is_one_line(
    cli: Cli, at: tuple[str, str], arguments: tuple[str, ...], said: str
) -> None:
    code, _, err = cli(*arguments, *at)
    assert (code, err.count("\n")) == (2, 1)
    assert said in err


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://127.0.0.1:9", "no daemon answers there"),
        ("ftp://x", "must begin with http"),
        ("http://127.0.0.1:notaport", "no answer"),
    ],
)
def test_no_daemon_is_one_line(cli: Cli, url: str, said: str) -> None:
    for command in (("status",), ("top",), ("trace",), ("load", "m"), ("unload", "m")):
        code, _, err = cli(*command, "--url", url)
        assert (code, err.count("\n")) == (2, 1)
        assert said in err and url in err


def test_status_for_people_and_programs(cli: Cli, at: tuple[str, str], tmp_path: Path) -> None:
    infer(cli, at, tmp_path, 1)
    code, out, _ = cli("status", *at)
    assert code == 0
    (row,) = (line.split() for line in out.splitlines() if line.startswith("q "))
    assert row[1:4] == ["quick", "100.0", "%"]
    code, out, _ = cli("status", "--json", "-", *at)
    envelope = msgspec.json.decode(out, type=Envelope)
    status = msgspec.convert(envelope.results[0], Status, strict=False)
    assert (status.workload, status.tenants[0].models) == ("test", ("quick",))
    assert status.lanes[0].ready and status.scheduler.blocks > 0
    code, out, _ = cli("status", "--json", str(tmp_path / "s.json"), *at)
    assert (code, out) == (0, "")
    assert json.loads((tmp_path / "s.json").read_bytes())["command"].startswith("tenantdl")


def test_infer_for_programs(cli: Cli, at: tuple[str, str]) -> None:
    code, out, err = cli("infer", "quick", "--random", "1", "--json", "-", *at)
    assert (code, err) == (0, "")
    (row,) = json.loads(out)["results"]
    assert row.pop("latency_ms") > 0
    outputs = {"y": ["float32", [1, 2]]}
    assert row == {
        "experiment": "infer",
        "model": "quick",
        "label": "measured",
        "outputs": outputs,
    }


def test_top_shows_as_many_frames_as_asked(cli: Cli, at: tuple[str, str]) -> None:
    code, out, _ = cli("top", "--count", "2", "--every", "0.1", *at)
    assert code == 0 and "Core time" in out and "Advice" in out


def test_traces_of_the_daemon_and_of_its_journal(
    cli: Cli, daemon: RunningDaemon, at: tuple[str, str], tmp_path: Path
) -> None:
    infer(cli, at, tmp_path, 1)
    code, out, _ = cli("trace", "-o", str(tmp_path / "live.json"), *at)
    assert code == 0 and "blocks written" in out
    live = json.loads((tmp_path / "live.json").read_bytes())["traceEvents"]
    blocks = [event for event in live if event["ph"] == "X"]
    assert blocks and {event["cat"] for event in blocks} == {"q"}
    assert {event["tid"] for event in blocks} == {usable_cores()[0]}
    assert all("expected_us" in event["args"] for event in blocks)
    bad = tmp_path / "bad"
    bad.write_text("{}")
    code, _, err = cli("trace", "--journal", str(bad), "-o", str(tmp_path / "j.json"))
    assert code == 2 and "not a journal" in err


def test_completion_knows_the_commands() -> None:
    environment = {"_TENANTDL_COMPLETE": "complete_bash", "COMP_WORDS": "tenantdl st"}
    done = subprocess.run(
        [sys.executable, "-m", "tenantdl"],
        env={"PATH": "", "COMP_CWORD": "1", "PYTHONPATH": ":".join(sys.path), **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split() == ["status"], done.stderr
