"""Result files: what goes in comes out, and unlike machines refuse to merge."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import tenantdl
from tenantdl.bench.envelope import read_results, write_results
from tenantdl.errors import UserError
from tenantdl.machine import this_machine

ROWS = [{"model": "a", "median_ms": 1.5}, {"model": "b", "median_ms": 2.5}]


def test_round_trip_keeps_rows_and_says_where_they_come_from(tmp_path: Path) -> None:
    written = write_results(tmp_path / "deep" / "r.json", ROWS, command="tenantdl x", seed=7)
    read = read_results(tmp_path / "deep" / "r.json")
    assert read == written
    assert (read.results, read.seed, read.command) == (ROWS, 7, "tenantdl x")
    assert read.version == tenantdl.__version__
    assert read.machine["model"] == this_machine().model
    assert [file.name for file in (tmp_path / "deep").iterdir()] == ["r.json"]


def test_rows_of_like_machines_merge_in_order(tmp_path: Path) -> None:
    for name, row in zip("ab", ROWS, strict=True):
        write_results(tmp_path / name, [row], command=name, seed=None)
    assert read_results(tmp_path / "a", tmp_path / "b").results == ROWS


@pytest.mark.parametrize("key", ["model", "arch", "cores", "caches", "features"])
def test_unlike_machines_refuse_to_merge(tmp_path: Path, key: str) -> None:
    for name in "ab":
        write_results(tmp_path / name, ROWS, command=name, seed=None)
    content = json.loads((tmp_path / "b").read_text())
    content["machine"][key] = "another"
    (tmp_path / "b").write_text(json.dumps(content))
    with pytest.raises(UserError, match=rf"another machine.*\({key} differs\)"):
        read_results(tmp_path / "a", tmp_path / "b")


def test_memory_size_does_not_make_machines_unlike(tmp_path: Path) -> None:
    for name in "ab":
        write_results(tmp_path / name, ROWS, command=name, seed=None)
    content = json.loads((tmp_path / "b").read_text())
    content["machine"]["memory_bytes"] += 4096
    (tmp_path / "b").write_text(json.dumps(content))
    assert len(read_results(tmp_path / "a", tmp_path / "b").results) == 4


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("", "is not a result file"),
        ("[1]", "is not a result file"),
        ('{"format": 1}', "is not a result file"),
        ('{"results": "none"}', "is not a result file"),
    ],
)
def test_foreign_files_are_refused(tmp_path: Path, content: str, complaint: str) -> None:
    (tmp_path / "r.json").write_text(content)
    with pytest.raises(UserError, match=complaint):
        read_results(tmp_path / "r.json")


def test_other_formats_and_missing_files_are_refused(tmp_path: Path) -> None:
    write_results(tmp_path / "r.json", ROWS, command="x", seed=None)
    content = json.loads((tmp_path / "r.json").read_text()) | {"format": 99}
    (tmp_path / "r.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="result format 99, this tenantdl reads 1"):
        read_results(tmp_path / "r.json")
    with pytest.raises(UserError, match="cannot be read: No such file"):
        read_results(tmp_path / "none.json")
    with pytest.raises(UserError, match="no result file"):
        read_results()
