"""`tenantdl zoo`: list, build, path."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest

from tenantdl import zoo
from tests.cli.conftest import Cli


def test_list_names_all_models(cli: Cli) -> None:
    code, out, _ = cli("zoo", "list")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines() if line[0] != " "][1:] == list(zoo.names())


def test_build_writes_a_model(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "m.onnx"
    code, out, _ = cli("zoo", "build", "mobilenet_v2", "-o", str(file))
    assert code == 0
    assert out.startswith(f"Written to {file} (")
    onnx.checker.check_model(onnx.load(file))


def test_path_prints_only_the_path(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zoo, "path", lambda name: Path("/models") / f"{name}.onnx")
    assert cli("zoo", "path", "ocr") == (0, "/models/ocr.onnx\n", "")


def test_unknown_name_is_one_line(cli: Cli) -> None:
    code, _, err = cli("zoo", "path", "nosuch")
    assert code == 2
    assert err.startswith("tenantdl: error: nosuch: no such model; there are ")


def test_list_for_programs(cli: Cli) -> None:
    code, out, _ = cli("zoo", "list", "--json", "-")
    rows = {row["name"]: row for row in json.loads(out)["results"]}
    assert code == 0 and set(rows) == set(zoo.names())
    assert rows["resnet50"]["gflops"] > 7
