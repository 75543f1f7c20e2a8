"""`bench plan-served` and `bench application`: rows, and what cannot be run."""

from __future__ import annotations

from pathlib import Path

import pytest

from tenantdl.bench import plan_served, qos
from tenantdl.bench.application import Row, _note, _row, _Score, run
from tenantdl.bench.envelope import read_results
from tenantdl.bench.pages import page
from tenantdl.bench.qos_timeline import Timeline
from tenantdl.errors import UserError
from tenantdl.load.workload import Workload, parse_workload
from tenantdl.machine import usable_cores
from tests.exec.fake_lane_backend import fake_bundle

HERE = Path(__file__).parent
TEXT = """
bundles = "BUNDLES"
[machine]
cores = [CORE]
[[tenant]]
name = "one"
bundle = "fake:4:100"
qos_ms = 5000
rate = 30
[[tenant]]
name = "two"
bundle = "fake:8:1000"
qos_ms = 9000
rate = 10
"""


def test_a_planned_workload_is_driven_with_less_until_all_are_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", f"{HERE.parent / 'exec'}:{HERE.parents[1]}")
    fake_bundle(tmp_path, "quick", 4, 100)
    fake_bundle(tmp_path, "slow", 8, 1000)
    text = TEXT.replace("BUNDLES", str(tmp_path)).replace("CORE", str(usable_cores()[0]))
    file = tmp_path / "out.json"
    rows = plan_served.run(
        parse_workload(text), share=0.9, duration_s=1, json=file, backend="fake_lane_backend"
    )
    assert [(row["arrivals"], row["tenant"]) for row in rows] == [
        (kind, tenant) for kind in ("constant", "poisson") for tenant in ("one", "two")
    ]
    assert all(row["within"] == row["planned_within"] == 1 for row in rows[:2])
    assert read_results(file).results == rows

    def late(workload: Workload, **_: object) -> qos.Result:
        """In time is who gets at most twenty requests a second."""
        rates = workload.rates()
        rows: list[qos.Row] = [
            {
                "tenant": t.name,
                "rate": rates[t.name],
                "qos_ms": t.qos_ms,
                "attainment": float(rates[t.name] <= 20),
                "p95_ms": 1.0,
                "p99_ms": 1.0,
            }
            for t in workload.tenant
        ]
        return qos.Result(workload, rows, {}, Timeline({}, [], 0, 0, {}), "")

    monkeypatch.setattr(plan_served.qos, "run", late)
    rows = plan_served.run(parse_workload(text), share=0.9, duration_s=1)
    tried = [(row["margin"], row["within"]) for row in rows if row["tenant"] == "one"]
    assert tried == [(0, 0), (0, 0), (0.25, 0), (0.5, 1)]


def test_nothing_to_drive() -> None:
    text = '[[application]]\nname = "a"\nslo_ms = 1\nrate = 1\n[[application.module]]\n'
    workload = parse_workload(text + 'name = "m"\nbundle = "b"')
    with pytest.raises(UserError, match="no tenants"):
        plan_served.run(workload, share=0.9, duration_s=1)
    with pytest.raises(UserError, match="no application 'ocr'"):
        run(workload, "ocr", systems=(), pages=1, rounds=1, concurrency=1, seed=1)


def test_pages_are_seeded_and_lines_are_counted() -> None:
    shown = page(1, 2)
    assert (shown.image == page(1, 2).image).all()
    assert shown.lines == page(1, 2).lines != page(2, 2).lines
    score = _Score(rates=[2.0])
    _note(score, shown, list(shown.lines), 0.5)
    _note(score, shown, ["x", *shown.lines[1:]], 1.5)
    _note(score, shown, shown.lines[1:], 1.0)
    row: Row = _row("s", 1, score)
    assert row["lines"] - row["lines_right"] == 2
    assert row["wrong"] == [[shown.lines[0], "x"], [shown.lines[0], "–"]]
    assert row["p50_ms"] == 1000
