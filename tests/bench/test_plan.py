"""`bench plan`: rows, summaries, seeds."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from tenantdl.bench import plan, plan_promise
from tenantdl.bench.envelope import read_results, write_results
from tenantdl.bench.plan_cases import application, measured_tables
from tenantdl.bench.plan_merging import OURS as MERGING
from tenantdl.bench.plan_table import write
from tenantdl.errors import UserError
from tenantdl.plan.planners import OURS, PLANNERS
from tenantdl.plan.tables import read_table


def test_cases_are_seeded_and_of_all_sizes() -> None:
    measured = measured_tables()
    cases = [application(3, number, measured) for number in range(16)]
    assert cases[5] == application(3, 5, measured)
    assert cases[5] != application(4, 5, measured)
    names = {case.name for case in cases}
    assert names == {f"{kind}-{size}" for kind in ("random", "measured") for size in range(1, 5)}


def test_rows_and_file(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    rows = plan.run(cases=3, seed=1, merging_cases=4, json=path, command="typed")
    assert read_results(path).results == rows
    assert read_results(path).command == "typed"
    ours = [row for row in rows if row["planner"] == OURS]
    assert [row["case"] for row in ours] == [0, 1, 2]
    for row in ours:
        assert row["bound"] * (1 - plan.SAME) <= row["cost"] <= row["optimal_cost"] * 1.05
        assert row["millis"] > 0
    assert {row["planner"] for row in rows} >= {*PLANNERS, MERGING, "batch"}


def test_costs_do_not_depend_on_how_many_are_asked() -> None:
    few = plan.run(cases=2, seed=7, exact=False, planners=[OURS], merging_cases=1)
    more = plan.run(cases=3, seed=7, exact=False, planners=[OURS], merging_cases=2)
    last = plan.run(cases=1, first=2, seed=7, exact=False, planners=[OURS])

    def costs(rows: list[plan.Row]) -> dict[tuple[str, int], float]:
        return {(row["planner"], row["case"]): row["cost"] for row in rows}

    assert costs(few).items() <= costs(more).items()
    assert costs(last) == {(OURS, 2): costs(more)[OURS, 2]}
    assert all(row["optimal_cost"] is None for row in last)


def test_summaries() -> None:
    def row(planner: str, case: int, cost: float | None, optimum: float) -> plan.Row:
        return {
            "planner": planner, "case": case, "cost": cost, "optimal_cost": optimum, "millis": 2.0
        }  # fmt: skip

    rows = [row(OURS, 0, 1.0, 1.0), row(OURS, 1, 2.2, 2.0), row("x", 0, 3.0, 1.0)]
    rows.append(row("x", 1, None, 2.0))
    ours, other = plan.summarize(rows)
    assert (ours.optimal, ours.planned, ours.failed) == (0.5, 2, 0)
    assert ours.gap_max == pytest.approx(0.1)
    assert (other.planned, other.failed, other.ratio_mean) == (1, 1, 3.0)


def test_a_profile_table_is_made_of_measured_latencies(tmp_path: Path) -> None:
    row = {"model": "m", "target": "tenantdl", "threads": 2, "batch": 4, "median_ms": 3.0}
    rows = [row | {"p95_ms": 4.0}, row | {"p95_ms": 9.0, "target": "other"}]
    write_results(tmp_path / "r.json", rows, command="typed", seed=None)
    write([tmp_path / "r.json"], tmp_path / "t.json")
    (entry,) = read_table(tmp_path / "t.json")["m"].entries
    assert (entry.cores, entry.batch, entry.latency_ms, entry.bound_ms) == (2, 4, 3.0, 4.0)
    write_results(tmp_path / "n.json", rows[1:], command="typed", seed=None)
    with pytest.raises(UserError, match="no latencies of ours"):
        write([tmp_path / "n.json"], tmp_path / "t.json")


def test_promises_are_simulated() -> None:
    rows = plan_promise.run(cases=4, seed=2, share=0.95)
    by_arrivals = {(row["case"], row["arrivals"]): row for row in rows}
    assert len(rows) == len(by_arrivals) == 16
    for case, arrivals in itertools.product(range(4), ("constant", "poisson")):
        plain = by_arrivals[case, arrivals]
        held = by_arrivals[case, f"{arrivals} + margin"]
        assert held["within"] >= min(plain["within"], 0.95)
        assert held["cost_ratio"] >= 1 - 1e-9
    assert {row["modules"] for row in plan_promise.summarize(rows)} == {1, 2, 3, 4}
