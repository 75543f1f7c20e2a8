"""`tenantdl plan`: a workload planned, its files, and what is wrong with it in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tenantdl.cli.plan import parse_what_if
from tenantdl.errors import UserError
from tenantdl.plan.workload import WhatIf
from tests.cli.conftest import Cli

WORKLOAD = Path(__file__).resolve().parents[2] / "workloads" / "plan.toml"


def test_a_workload_is_planned(cli: Cli, tmp_path: Path) -> None:
    file, picture = tmp_path / "plan.json", tmp_path / "plan.png"
    code, out, err = cli("plan", str(WORKLOAD), "--json", str(file), "--gantt", str(picture))
    assert (code, err) == (0, "")
    assert "fits" in out and "photos + album" in out
    plan = json.loads(file.read_text())
    assert plan["fits"] and plan["cost_cores"] < 2
    assert [each["name"] for each in plan["plans"]] == ["ocr", "photos + album"]
    for each in plan["plans"]:
        assert sum(m["cost_cores"] for m in each["modules"]) == pytest.approx(each["cost_cores"])
        assert all(m["latency_ms"] <= m["budget_ms"] * 1.000001 for m in each["modules"])
        assert 0 <= each["expected_poisson_simulated"]["within_slo"] <= 1
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_what_if(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    code, *_ = cli(
        "plan", str(WORKLOAD), "--what-if", "cores=16 rate=8x", "--hold", "0.99", "--exact",
        "--json", str(file),
    )  # fmt: skip
    assert code == 0
    plan = json.loads(file.read_text())
    assert plan["cores"] == 16
    assert plan["plans"][0]["modules"][0]["rate"] == 24
    for each in plan["plans"]:
        assert each["expected_poisson_simulated"]["within_slo"] >= 0.99
        if not each["margin"]:
            assert each["proven_bound_cores"] <= each["cost_cores"] * (1 + 1e-5)


def test_a_machine_that_is_too_small(cli: Cli) -> None:
    code, out, _ = cli("plan", str(WORKLOAD), "--what-if", "rate=10x,cores=1")
    assert code == 1
    assert "does not fit" in out and "1 there" in out


def test_the_binding_constraint_is_named(cli: Cli) -> None:
    code, out, err = cli("plan", str(WORKLOAD), "--what-if", "slo=0.1x")
    assert (code, out) == (2, "")
    assert "application ocr: detect → turn → read takes at least" in err
    assert "over the target of 50 ms by" in err
    assert err.count("\n") == 1


def test_a_model_without_a_profile(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "w.toml"
    file.write_text(
        '[[application]]\nname = "a"\nslo_ms = 5\nrate = 1\n[[application.module]]\n'
        'name = "m"\nmodel = "none"\n'
    )
    code, _, err = cli("plan", str(file))
    assert code == 2
    assert "m: no profile of 'none'; profiles: none" in err


def test_what_if_is_parsed() -> None:
    assert parse_what_if(["cores=16, rate=2x", "slo=0.5x"]) == WhatIf(16, 2.0, 0.5)
    assert parse_what_if([]) == WhatIf()


@pytest.mark.parametrize(
    "text", ["cores=0", "cores=2x", "rate=2", "rate=0x", "rate=x", "cores=1 cores=2", "", "a=1"]
)
def test_what_is_no_assumption_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="--what-if"):
        parse_what_if([text])
