"""`tenantdl bench`: options become settings, rows become a table and a file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from tenantdl.bench import latency, qos
from tenantdl.bench.envelope import read_results
from tenantdl.bench.qos_timeline import Timeline
from tenantdl.load.workload import parse_workload
from tests.cli.conftest import Cli

ROW = {"batch": 1, "threads": 1, "p05_ms": 1.0, "p95_ms": 9.0, "runs": 30}
ROW |= {"calibration_ms": [1.0, 2.0], "model": "m"}


def _report(difference: float = 1e-6, failures: tuple[str, ...] = ()) -> latency.Report:
    ours = ROW | {"target": "tenantdl", "median_ms": 3.0, "kinds_ms": {"dense": 3.0, "pool": 1.0}}
    theirs = ROW | {"target": "onnxruntime", "median_ms": 4.0, "difference": difference}
    return latency.Report([ours, theirs], list(failures))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What was asked of the library; put the report it gives under "report"."""
    found: dict[str, Any] = {"report": _report()}

    def measure(models: list[str], settings: latency.Settings, progress: Any) -> latency.Report:
        found.update(models=models, settings=settings)
        report: latency.Report = found["report"]
        return report

    monkeypatch.setattr(latency, "measure", measure)
    return found


def test_table_ratio_and_file(cli: Cli, asked: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "r.json"
    options = ["--against", "onnxruntime", "--threads", "1", "--runs", "40", "--seed", "9"]
    code, out, _ = cli("bench", "latency", "m", *options, "--json", str(file))
    assert code == 0
    assert asked["models"] == ["m"]
    assert asked["settings"] == latency.Settings(("onnxruntime",), (1,), 1, 40, seed=9)
    words = " ".join(out.split())
    assert "m 1 3.00 (1.00–9.00) 4.00 (1.00–9.00) 0.75 1.0e-06 30" in words
    assert "geometric mean of 1 ratios on 1 thread(s): 0.75" in words
    assert "m on 1: dense 3.00 ms (75 %), pool 1.00 ms (25 %)" in words
    assert "p95/p05 up to 9.00; the calibration loop took 1.00–2.00 ms" in words
    assert read_results(file).results == asked["report"].rows
    assert read_results(file).seed == 9


@pytest.mark.parametrize(
    ("report", "complaint"),
    [
        (_report(difference=0.5), "outputs differ by more than 0.001"),
        (_report(failures=("x: no",)), "not measured: x: no"),
        (latency.Report([], ["x: no"]), "not measured: x: no"),
    ],
)
def test_failures_and_wrong_outputs_are_exit_1(
    cli: Cli, asked: dict[str, Any], report: latency.Report, complaint: str
) -> None:
    asked["report"] = report
    code, _, err = cli("bench", "latency", "m")
    assert code == 1
    assert complaint in err


def test_unknown_peer(cli: Cli) -> None:
    code, _, err = cli("bench", "latency", "m", "--against", "torch")
    assert code == 2
    assert "unknown 'torch': choose from onnxruntime, openvino" in err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--only", "a"], "--only says nothing without --target"),
        (["--overload", "2"], "--overload says nothing without --target"),
        (["--machine", "64-core"], "--machine says nothing without --target"),
        (["--target", "daemon", "--journal", "j.jsonl"], "--journal is of one daemon at one rate"),
    ],
)
def test_options_that_would_be_ignored_are_refused(
    cli: Cli, tmp_path: Path, options: list[str], message: str
) -> None:
    workload = tmp_path / "w.toml"
    workload.write_text('[[tenant]]\nname = "a"\nbundle = "b"\nqos_ms = 1\n')
    code, _, err = cli("bench", "qos", str(workload), *options)
    assert code == 2
    assert message in err


def test_qos_passes_options_on_and_shows_a_row_a_tenant(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {}
    row = {"tenant": "ocr", "qos_ms": 15, "rate": 16, "requests": 320, "attainment": 0.875}
    row |= {"p50_ms": 1.25, "p95_ms": 2, "p99_ms": None, "throughput": 15.5}
    rows = [row | {"refused": {"HTTP 429": 40}}, row | {"tenant": "all", "refused": {}}]

    def run(workload: Path, **options: Any) -> qos.Result:
        asked.update(options, workload=workload)
        parsed = parse_workload("[[tenant]]\nname = 'ocr'\nbundle = 'b'\nqos_ms = 15")
        return qos.Result(parsed, rows, {}, Timeline({}, [], 0, 0, {}), options["command"])

    monkeypatch.setattr(qos, "run", run)
    monkeypatch.setattr(sys, "argv", ["tenantdl", "bench", "qos"])  # other runners set others
    options = ["--rate", "80", "--duration", "20", "--policy", "model-fcfs", "--seed", "3"]
    page = tmp_path / "r.html"
    code, out, _ = cli("bench", "qos", "w.toml", *options, "--report", str(page))
    assert code == 0
    assert asked.pop("command").startswith("tenantdl ")
    assert asked == {
        "workload": Path("w.toml"),
        "rate": 80,
        "duration_s": 20,
        "policy": "model-fcfs",
        "seed": 3,
        "json": None,
        "report": page,
        "journal": None,
    }
    words = " ".join(out.split())
    assert "ocr 15 16.0 320 87.5% 1.2 2.0 – 15.5 40 × HTTP 429" in words
    assert f"Report with plots: {page}" in words
