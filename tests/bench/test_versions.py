"""What versions and knowledge are worth: tables of every kind, gains related to one version."""

from __future__ import annotations

from pathlib import Path

import pytest

from tenantdl.bench import versions
from tenantdl.bench.envelope import read_results
from tenantdl.errors import UserError
from tenantdl.ids import ModelId
from tenantdl.load.workload import parse_workload
from tenantdl.sim.machines import load_machine

WORKLOAD = parse_workload(
    """
name = "one"
[load]
rate = 100
[[tenant]]
name = "google"
bundle = "google.bundle"
profile = "googlenet"
qos_ms = 15
"""
)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions, "ENCOUNTERS", 60)


def test_knowledge_comes_as_tables() -> None:
    machine = load_machine("64-core")
    nothing = versions.told(machine, "none", 3, 1)
    assert nothing[ModelId("resnet50")] == [(0, (1000,))] * 3
    oracle = versions.told(machine, "oracle", 3, 1)
    learned = versions.told(machine, "learned", 3, 1)
    for told in (oracle, learned):
        greedy, _, modest = told[ModelId("resnet50")]
        assert greedy[0] > modest[0]  # exerts more
        assert greedy[1][-1] > modest[1][-1]  # suffers more
    pairs = zip(oracle[ModelId("resnet50")], learned[ModelId("resnet50")], strict=True)
    for (_, true), (_, guess) in pairs:
        assert guess[-1] == pytest.approx(true[-1], rel=0.25)


def test_rows_relate_to_one_version(tmp_path: Path) -> None:
    file = tmp_path / "v.json"
    versions.run(
        [WORKLOAD],
        machine="64-core",
        policies="tenantdl",
        knowledge=["none", "oracle"],
        versions=[1, 2],
        seeds=1,
        requests=60,
        json=file,
    )
    rows = {(r["knowledge"], r["versions"]): r for r in read_results(file).results}
    assert len(rows) == 4
    for known in ("none", "oracle"):
        one, two = rows[known, 1], rows[known, 2]
        assert one["gain"] == 1.0
        assert two["gain"] == pytest.approx(two["qps_at_95"] / one["qps_at_95"], abs=1e-3)
        assert two["published_gain"] == 1.47
    with pytest.raises(UserError, match="knowledge 'rumour' is unknown"):
        versions.run(
            [WORKLOAD],
            machine="64-core",
            policies="tenantdl",
            knowledge=["rumour"],
            versions=[1],
            seeds=1,
            requests=60,
        )
