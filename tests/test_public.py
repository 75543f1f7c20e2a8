"""The public surface: what is promised exists, nothing else is, and importing it stays cheap."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import tenantdl

SURFACE = {
    "compile": "callable",
    "CompileSummary": "class",
    "load": "callable",
    "Model": "class",
    "Manifest": "class",
    "Machine": "class",
    "this_machine": "callable",
    "TenantdlError": "class",
    "UserError": "class",
    "ExecutionError": "class",
    "InvariantError": "class",
    "__version__": "text",
}


def _kind(value: object) -> str:
    if isinstance(value, type):
        return "class"
    return "callable" if callable(value) else "text" if isinstance(value, str) else "other"


def test_surface_is_exactly_this() -> None:
    assert {name: _kind(getattr(tenantdl, name)) for name in tenantdl.__all__} == SURFACE
    assert dir(tenantdl) == sorted(SURFACE)


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'serv'"):
        tenantdl.serv  # noqa: B018


def test_functions_stay_callable_after_packages_of_their_name_are_imported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import tenantdl.api
    import tenantdl.compile.graph
    import tenantdl.load.arrivals

    assert tenantdl.compile.graph.GRAPH_OPSET
    assert tenantdl.load.arrivals.ARRIVALS
    for name in ("compile", "load"):
        monkeypatch.setattr(tenantdl.api, name, lambda *args, **options: (args, options))
        assert getattr(tenantdl, name)("x", cores=1) == (("x",), {"cores": 1})


@pytest.mark.parametrize(
    "statement",
    ["import tenantdl", "import tenantdl; tenantdl.load, tenantdl.Model, tenantdl.Manifest"],
)
def test_online_use_imports_neither_onnx_nor_the_compiler(statement: str) -> None:
    code = f"{statement}\nimport json, sys; print(json.dumps(sorted(sys.modules)))"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    loaded = set(json.loads(answer.stdout))
    assert "tenantdl" in loaded
    assert loaded & {"onnx", "tvm", "typer", "rich", "matplotlib", "starlette"} == set()
