"""Tables as files: read by the daemon, refused when they are of something else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tenantdl.errors import UserError
from tenantdl.predict.tables import ModelTables, VariantTable, read_tables, tabled, write_tables
from tenantdl.sched.config import PlanSpec, VariantSpec, one_core_plan
from tenantdl.sched.costs import PlanCosts
from tenantdl.sched.plans import narrowed
from tenantdl.units import MS, Ns

TABLES = ModelTables("abcd", (VariantTable(300, (1000, 1200)), VariantTable(100, (1000, 1050))))


def test_tables_survive_a_file(tmp_path: Path) -> None:
    write_tables({"m": TABLES}, tmp_path / "t.json")
    assert read_tables(tmp_path / "t.json") == {"m": TABLES}


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda d: d.update(machine="an abacus"), "another machine"),
        (lambda d: d.update(format=9), "format 9"),
        (lambda d: d["models"]["m"]["variants"][0].update(slowdowns=[1200, 1000]), "no table of"),
        (lambda d: d["models"]["m"]["variants"][0].update(slowdowns=[]), "no table of"),
        (lambda d: d["models"]["m"]["variants"][0].update(pressure=-1), "no table of"),
        (lambda d: d.update(models=3), "not a tables file"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, change: object, complaint: str) -> None:
    file = tmp_path / "t.json"
    write_tables({"m": TABLES}, file)
    document = json.loads(file.read_text())
    change(document)  # type: ignore[operator]
    file.write_text(json.dumps(document))
    with pytest.raises(UserError, match=complaint):
        read_tables(file)


def test_plans_are_told() -> None:
    plan = PlanSpec((VariantSpec((1, 2), ((9,), (5,))), VariantSpec((1, 2), ((10,), (4,)))))
    told = tabled(plan, TABLES)
    assert [v.pressure for v in told.variants] == [300, 100]
    assert PlanCosts(told, Ns(MS), 2).slowdown(0, 500) == 1100
    with pytest.raises(UserError, match="profile it again"):
        tabled(one_core_plan((1,)), TABLES)


def test_plans_are_narrowed_to_some_numbers_of_cores() -> None:
    plan = PlanSpec((VariantSpec((1, 2), ((9,), (5,))),))
    assert narrowed(plan, ()) == plan
    assert narrowed(plan, (2, 4)).variants == (VariantSpec((2,), ((5,),)),)
    with pytest.raises(UserError, match=r"no costs on \[3\] cores"):
        narrowed(plan, (3,))
