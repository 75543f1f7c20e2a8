"""`bench decisions`: rows, and the load that they are of."""

from __future__ import annotations

from pathlib import Path

from tenantdl.bench import decisions
from tenantdl.bench.envelope import read_results
from tenantdl.load.workload import load_workload

MIX = Path(__file__).parents[2] / "workloads" / "mix.toml"


def test_every_machine_and_number_of_tenants_has_a_row(tmp_path: Path) -> None:
    out = tmp_path / "d.json"
    rows = decisions.measure(
        MIX,
        machines=["8-core", "16-core"],
        tenants=[2, 5],
        policies="tenantdl,edf",
        requests=12,
        rounds=1,
        json=out,
    )
    assert [(r["policy"], r["cores"], r["tenants"]) for r in rows[:4]] == [
        ("tenantdl", 8, 2),
        ("tenantdl", 8, 5),
        ("tenantdl", 16, 2),
        ("tenantdl", 16, 5),
    ]
    assert all(0 < r["p50_us"] <= r["p99_us"] and r["decisions"] > 12 for r in rows)
    assert read_results(out).results == rows


def test_tenants_are_repeated_under_other_names() -> None:
    names = [tenant.name for tenant in decisions.repeated(load_workload(MIX), 9).tenant]
    assert len(set(names)) == 9
    assert names[0] == "efficientnet_b0-0" and names[7] == "efficientnet_b0-7"
