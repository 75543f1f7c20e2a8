"""The cache: one build for equal keys, another for anything that changes the result."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tenantdl import api
from tenantdl.bench import cache
from tenantdl.bundle.manifest import FORMAT, MANIFEST
from tenantdl.errors import UserError


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Stands in for the compiler: writes what a bundle starts with, and records each call."""
    made: list[Path] = []

    def compile(model: Path, out: Path, **_: Any) -> None:
        out.mkdir()
        (out / MANIFEST).write_text("{}")
        made.append(out)

    monkeypatch.setattr(api, "compile", compile)
    monkeypatch.setattr(cache, "read_manifest", lambda folder: None)
    return made


def _source(tmp_path: Path, content: bytes = b"model") -> cache.Source:
    file = tmp_path / "m.onnx"
    file.write_bytes(content)
    return cache.source(str(file), batch=1, seed=0)


def test_a_bundle_is_compiled_once(tmp_path: Path, compiled: list[Path]) -> None:
    model = _source(tmp_path)
    first = cache.bundle(model, batch=1, shapes={"x": (1, 3)})
    assert cache.bundle(model, batch=1, shapes={"x": (1, 3)}) == first
    assert compiled == [first]
    assert first.is_relative_to(tmp_path / "cache")


def test_shapes_batch_and_content_each_make_another_bundle(
    tmp_path: Path, compiled: list[Path]
) -> None:
    model = _source(tmp_path)
    cache.bundle(model, batch=1, shapes={"x": (1, 3)})
    cache.bundle(model, batch=1, shapes={"x": (1, 4)})
    cache.bundle(model, batch=2, shapes={"x": (1, 3)})
    cache.bundle(_source(tmp_path, b"other"), batch=1, shapes={"x": (1, 3)})
    assert len(set(compiled)) == 4


def test_a_damaged_bundle_is_compiled_again(
    tmp_path: Path, compiled: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def damaged(folder: Path) -> None:
        raise UserError(f"bundle format 0, this tenantdl reads {FORMAT}", where=str(folder))

    model = _source(tmp_path)
    cache.bundle(model, batch=1, shapes={})
    monkeypatch.setattr(cache, "read_manifest", damaged)
    cache.bundle(model, batch=1, shapes={})
    assert len(compiled) == 2


def test_a_model_of_the_zoo_is_built_once_with_samples() -> None:
    model = cache.source("mobilenet_v2", batch=2, seed=1)
    assert model.file.is_file()
    assert model.samples is not None
    assert cache.shapes_of(model.samples) == {"image": (2, 3, 224, 224)}
    written = model.file.stat().st_mtime_ns
    again = cache.source("mobilenet_v2", batch=2, seed=1)
    assert again.file == model.file
    assert again.file.stat().st_mtime_ns == written
    np.testing.assert_array_equal(model.samples["image"], (again.samples or {})["image"])


def test_neither_file_nor_zoo_name() -> None:
    with pytest.raises(UserError, match="neither a file nor a model of the zoo"):
        cache.source("nosuch", batch=1, seed=0)
