"""compile, run and inspect, with stand-ins for the compiler and for the kernels."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from tenantdl import api
from tenantdl.bundle.manifest import Manifest
from tenantdl.cli import tensors
from tests.cli.conftest import Cli


class FakeModel:
    """y = 2 x."""

    def __init__(self, manifest: Manifest) -> None:
        self.inputs = manifest.plans[0].inputs

    def run(self, inputs: dict[str, Any]) -> dict[str, Any]:
        return {"y": 2 * inputs["x"]}


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch, manifest: Manifest) -> list[Any]:
    """Cores that bundles were loaded on."""
    groups: list[Any] = []

    def load(path: Path, cores: Any = None) -> FakeModel:
        groups.append(cores)
        return FakeModel(manifest)

    monkeypatch.setattr(api, "load", load)
    return groups


def test_inspect_shows_tensors_kernels_and_sizes(cli: Cli, bundle: Path) -> None:
    code, out, _ = cli("inspect", str(bundle))
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert code == 0
    for expected in [
        "model tiny",
        "target x86_64 haswell",
        "operators 3",
        "segments 2",
        "latency on one core 2.00 ms (measured)",
        "weights 2.0 KiB",
        "input x float32 1x3",
        "output y float32 1x3",
        "conv 2 66.7 % 90.0 %",
        "generic 1 33.3 % 10.0 %",
    ]:
        assert expected in lines


def test_compile_passes_options_on_and_shows_a_summary(
    cli: Cli, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {}

    def compile(model: Path, out: Path, **options: Any) -> None:
        asked.update(options, model=model)
        options["progress"]("kernels", 0.5)
        shutil.copytree(bundle, out)

    monkeypatch.setattr(api, "compile", compile)
    onnx_file = tmp_path / "net.onnx"
    onnx_file.write_bytes(b"")
    options = ["--batch", "4", "--shape", "x=4x3", "--cores", "1", "--target", "x86_64"]
    options += ["--tune", "fast", "--tuning-logs", str(tmp_path), "--no-winograd4"]
    code, out, _ = cli("compile", str(onnx_file), "-o", str(tmp_path / "o"), *options)
    assert code == 0
    assert asked.pop("progress")
    assert asked == {
        "model": onnx_file,
        "name": "net",
        "target": "x86_64",
        "tune": "fast",
        "tuning_logs": tmp_path,
        "winograd4": False,
        "batch": 4,
        "buckets": {},
        "shapes": {"x": (4, 3)},
        "cores": (1,),
        "variants": None,
    }
    assert " ".join(out.split()).endswith("Phase seconds frontend 1.25 kernels 2.50 total 3.75")


def test_models_of_the_zoo_get_their_usual_sizes(
    cli: Cli, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {}

    def compile(model: Any, out: Path, **options: Any) -> None:
        asked.update(options)
        shutil.copytree(bundle, out)

    monkeypatch.setattr(api, "compile", compile)
    assert cli("compile", "mobilenet_v2", "-o", str(tmp_path / "o"), "--batch", "2")[0] == 0
    assert (asked["name"], asked["shapes"]) == ("mobilenet_v2", {"image": (2, 3, 224, 224)})


@pytest.mark.usefixtures("loaded")
def test_run_and_compile_for_programs(
    cli: Cli, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, _ = cli("run", str(bundle), "--random", "3", "--json", "-")
    (row,) = json.loads(out)["results"]
    assert code == 0 and row["min"] <= row["mean"] <= row["max"]
    monkeypatch.setattr(api, "compile", lambda *_, **__: None)
    file = tmp_path / "compiled.json"
    arguments = ("compile", "mobilenet_v2", "-o", str(bundle), "--json", str(file))
    assert cli(*arguments)[0] == 0
    (row,) = json.loads(file.read_text())["results"]
    assert row["bundle"] == str(bundle) and row["seconds"] >= 0 and row["summary"]


@pytest.mark.usefixtures("loaded")
def test_run_reads_and_writes_npz(cli: Cli, bundle: Path, tmp_path: Path) -> None:
    x = np.array([[1, 2, 3]], np.float32)
    np.savez(tmp_path / "x.npz", x=x)
    files = ["--input", str(tmp_path / "x.npz"), "--output", str(tmp_path / "y.npz")]
    code, out, _ = cli("run", str(bundle), *files)
    assert code == 0
    assert "y float32 1x3 2 4 6" in " ".join(out.split())
    with np.load(tmp_path / "y.npz", allow_pickle=False) as written:
        np.testing.assert_array_equal(written["y"], 2 * x)
    assert sorted(p.name for p in tmp_path.glob("*.npz")) == ["x.npz", "y.npz"]


def test_run_on_random_inputs_and_given_cores(cli: Cli, bundle: Path, loaded: list[Any]) -> None:
    first = cli("run", str(bundle), "--random", "3", "--cores", "1,0")
    assert first[0] == 0
    assert loaded == [(1, 0)]
    assert cli("run", str(bundle), "--random", "3")[1] == first[1]
    assert cli("run", str(bundle), "--random", "4")[1] != first[1]


@pytest.mark.usefixtures("loaded")
def test_run_wants_one_source_of_inputs(cli: Cli, bundle: Path) -> None:
    code, _, err = cli("run", str(bundle))
    assert code == 2
    assert "give either --input X.npz or --random SEED" in err


X = np.zeros((1, 3), np.float32)


@pytest.mark.usefixtures("loaded")
@pytest.mark.parametrize(
    ("arrays", "complaint"),
    [
        ({}, "input 'x' is missing: needs float32 [1, 3]"),
        ({"x": X, "z": X}, "unknown input 'z'; the model takes x (float32 [1, 3])"),
        ({"x": X[0]}, "input 'x': is float32 [3], needs float32 [1, 3]"),
        ({"x": X.astype(np.int8)}, "input 'x': is int8 [1, 3], needs float32 [1, 3]"),
        ({"x": np.zeros(100_000)}, "input 'x': is too large: needs float32 [1, 3]"),
        ({"x": np.array([{}], object)}, "input 'x': cannot be read: Object arrays"),
    ],
    ids=["missing", "unknown", "misshaped", "mistyped", "large", "pickled"],
)
def test_bad_inputs_are_one_line(
    cli: Cli, bundle: Path, tmp_path: Path, arrays: dict[str, Any], complaint: str
) -> None:
    np.savez(tmp_path / "x.npz", **arrays)
    code, _, err = cli("run", str(bundle), "--input", str(tmp_path / "x.npz"))
    assert code == 2
    assert complaint in err
    assert err.count("\n") == 1


@pytest.mark.usefixtures("loaded")
def test_files_that_are_no_npz(cli: Cli, bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "x.npz").write_bytes(b"PK\x03\x04 but no archive")
    assert "is not an .npz file" in cli("run", str(bundle), "--input", str(tmp_path / "x.npz"))[2]
    missing = cli("run", str(bundle), "--input", str(tmp_path / "none.npz"))
    assert (missing[0], missing[1]) == (2, "")
    assert "none.npz: cannot be read: No such file" in missing[2]


def test_any_output_name_can_be_written(tmp_path: Path) -> None:
    outputs = {"file": X, "a/b:0": np.arange(3)}
    tensors.write_outputs(tmp_path / "y.npz", outputs)
    with np.load(tmp_path / "y.npz", allow_pickle=False) as written:
        assert set(written.files) == {"file", "a/b:0"}
        np.testing.assert_array_equal(written["a/b:0"], np.arange(3))


def test_inspect_for_programs(cli: Cli, bundle: Path, manifest: Manifest) -> None:
    code, out, _ = cli("inspect", str(bundle), "--json", "-")
    assert code == 0
    (row,) = json.loads(out)["results"]
    assert msgspec.convert(row, Manifest, strict=False) == manifest
