"""Documents: written whole or not at all, read only when they are what they should be."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from tenantdl.documents import indented_json, read_document, write_document
from tenantdl.errors import UserError


class Note(msgspec.Struct, forbid_unknown_fields=True):
    format: int
    text: str


def _read(path: Path) -> Note:
    return read_document(path, Note, "note file", format=3, bytes_max=100)


def test_round_trip_makes_folders_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "note.json"
    write_document(path, indented_json(Note(3, "first")))
    write_document(path, indented_json(Note(3, "second")))
    assert _read(path) == Note(3, "second")
    assert [file.name for file in path.parent.iterdir()] == ["note.json"]


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    (folder / "inside").mkdir(parents=True)
    with pytest.raises(UserError, match="cannot be written"):
        write_document(folder, b"x")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"format": 3, "text": "' + b"x" * 100 + b'"}', "is too large for a note file"),
        (b'{"format": 3}', "is not a note file: .*text"),
        (b'{"format": 4, "text": ""}', "note format 4, this tenantdl reads 3"),
    ],
)
def test_what_is_refused(tmp_path: Path, body: bytes, message: str) -> None:
    path = tmp_path / "note.json"
    path.write_bytes(body)
    with pytest.raises(UserError, match=message):
        _read(path)
    with pytest.raises(UserError, match="cannot be read"):
        _read(tmp_path / "missing.json")
