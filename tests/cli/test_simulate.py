"""`tenantdl simulate` and `tenantdl replay`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tenantdl.cli.main import run

WORKLOAD = """
name = "one"
[load]
rate = 100
[[tenant]]
name = "google"
bundle = "google.bundle"
profile = "googlenet"
qos_ms = 15
"""


@pytest.fixture
def workload(tmp_path: Path) -> Path:
    file = tmp_path / "w.toml"
    file.write_text(WORKLOAD)
    return file


def test_rows_are_as_promised(workload: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = workload.with_name("r.json")
    words = ["--policy", "edf,fixed-block(11)", "--seeds", "2", "--requests", "40"]
    assert run(["simulate", str(workload), *words, "--json", str(out)]) == 0
    assert "simulated" in capsys.readouterr().out
    rows = json.loads(out.read_text())["results"]
    assert [(row["policy"], row["seed"]) for row in rows] == [
        ("edf", 1),
        ("edf", 2),
        ("fixed-block(11)", 1),
        ("fixed-block(11)", 2),
    ]
    assert {row["workload"] for row in rows} == {"one"}
    assert {row["machine"] for row in rows} == {"64-core"}
    assert {row["qps_at_95"] for row in rows} == {None}


def test_the_world_can_be_varied(workload: Path) -> None:
    means = []
    for changes in ([], ["overheads=10"], ["contention=0", "scaling=2"]):
        words = [word for change in changes for word in ("--vary", change)]
        out = workload.with_name("v.json")
        basic = ["--policy", "layerwise", "--requests", "30", "--json", str(out)]
        assert run(["simulate", str(workload), *basic, *words]) == 0
        means.append(json.loads(out.read_text())["results"][0]["mean_latency_ms"])
    assert means[1] > means[0] != means[2]


def test_the_search_reports_its_rate(workload: Path) -> None:
    out = workload.with_name("r.json")
    words = ["--policy", "prema", "--find-qps", "0.95", "--requests", "60", "--machine", "16-core"]
    assert run(["simulate", str(workload), *words, "--json", str(out)]) == 0
    (row,) = json.loads(out.read_text())["results"]
    assert row["qps_at_95"] == row["rate"] > 0
    assert row["attainment"] >= 0.95


def test_a_journal_replays_and_a_changed_one_does_not(
    workload: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    journal = workload.with_name("j.jsonl")
    words = ["--policy", "tenantdl", "--requests", "30", "--journal", str(journal)]
    assert run(["simulate", str(workload), *words]) == 0
    assert run(["replay", str(journal), "--check"]) == 0
    assert "the same commands" in capsys.readouterr().out
    text = journal.read_bytes().replace(b'"variant":0', b'"variant":1', 1)
    changed = text if text != journal.read_bytes() else text.replace(b'"variant":1', b'"variant":0')
    journal.write_bytes(changed)
    assert run(["replay", str(journal)]) == 1
    assert "gives other commands" in capsys.readouterr().err


def test_plots_are_drawn(workload: Path) -> None:
    folder = workload.parent / "plots"
    words = ["--policy", "edf,tenantdl", "--requests", "20", "--plots", str(folder)]
    assert run(["simulate", str(workload), *words]) == 0
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["conflicts.png", "cores-edf.png", "cores-tenantdl.png", "qos-by-rate.png"]
    assert all(path.read_bytes()[:4] == b"\x89PNG" for path in folder.iterdir())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--policy", "edff"], "policy 'edff' is unknown"),
        (["--policy", "edf(3)"], "takes no number"),
        (["--vary", "noise=2"], "'noise=2' is not one of contention, overheads, scaling"),
        (["--vary", "scaling=x"], "'scaling=x' is not one of"),
        (["--machine", "7-core"], "machine '7-core' is unknown"),
        (["--policy", "edf,prema", "--journal", "j"], "one policy, one seed"),
    ],
)
def test_mistakes_are_one_line(
    workload: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert run(["simulate", str(workload), *words]) == 2
    assert message in capsys.readouterr().err


def test_a_missing_journal_is_a_user_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["replay", "/nowhere/j.jsonl"]) == 2
    assert "cannot be read" in capsys.readouterr().err
