"""Applications in a workload file: what is read, and the one line that says what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenantdl.errors import UserError
from tenantdl.load.applications import ApplicationSection, ModuleSection, check_applications
from tenantdl.load.workload import load_workload, parse_workload

HEAD = '[[application]]\nname = "ocr"\nslo_ms = 900\nrate = 2\n'
DET = '[[application.module]]\nname = "det"\nmodel = "ppocr_det"\n'
REC = '[[application.module]]\nname = "rec"\nbundle = "r.bundle"\nafter = ["det"]\nfan_out = 6\n'


def test_an_application_is_read() -> None:
    (application,) = parse_workload(HEAD + DET + REC).application
    assert application.edges() == ((0, 1),)
    assert [module.fan_out for module in application.module] == [1.0, 6.0]


def test_profiles_are_relative_to_the_file(tmp_path: Path) -> None:
    (tmp_path / "w.toml").write_text('profiles = ["p.json"]\n' + HEAD + DET)
    assert load_workload(tmp_path / "w.toml").profiles == (str(tmp_path / "p.json"),)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HEAD, "application[0]: object missing required field module"),
        (HEAD + DET + DET, "application[0].module[1].name: 'det' is there twice"),
        ((HEAD + DET) * 2, "application[1].name: 'ocr' is there twice"),
        (HEAD + REC, "application[0].module[0].after: there is no module 'det'"),
        (HEAD + DET.replace("model", "# "), "application[0].module[0]: give model or bundle"),
        (HEAD + DET + 'bundle = "b"\n', "application[0].module[0]: give model or bundle"),
        (HEAD + DET + 'after = ["det"]\n', "application[0]: modules wait for each other: det"),
        (HEAD + DET + "fanout = 2\n", "module[0].fanout: unknown key, did you mean 'fan_out'?"),
        (HEAD + "slo = 1\n" + DET, "application[0].slo: unknown key, did you mean 'slo_ms'?"),
        (HEAD.replace("900", "0") + DET, "application[0].slo_ms"),
        (HEAD.replace("rate = 2", "rate = nan") + DET, "application[0].rate"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(text: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_workload(text)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@given(st.integers(1, 8).flatmap(lambda n: st.tuples(st.just(n), st.sets(
    st.tuples(st.integers(0, n - 1), st.integers(0, n - 1))
))))  # fmt: skip
def test_edges_make_a_dag_or_are_refused(graph: tuple[int, set[tuple[int, int]]]) -> None:
    count, edges = graph
    modules = tuple(
        ModuleSection(
            name=f"m{n}", model="m", after=tuple(sorted(f"m{a}" for a, b in edges if b == n))
        )
        for n in range(count)
    )
    application = ApplicationSection(name="a", slo_ms=1, rate=1, module=modules)
    assert set(application.edges()) == edges
    reach = set(edges)
    for _ in range(count):
        reach |= {(a, d) for a, b in reach for c, d in edges if b == c}
    cyclic = any((n, n) in reach for n in range(count))
    try:
        check_applications((application,), "w")
    except UserError as error:
        assert cyclic
        assert "wait for each other" in str(error)
    else:
        assert not cyclic
