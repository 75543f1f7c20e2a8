"""Loading a bundle: what fits runs, what was damaged or tampered with is refused in one line."""

from __future__ import annotations

import gc
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nets import Net

import tenantdl
from tenantdl.bundle.library import Library
from tenantdl.bundle.load import WEIGHTS_BYTES_MAX, load_bundle
from tenantdl.compile.pipeline import compile_model
from tenantdl.errors import UserError


@pytest.fixture(scope="module")
def net() -> Net:
    net = Net()
    x = net.op("Conv", net.input(1, 16, 6, 6), net.weight(16, 16, 3, 3), pads=[1] * 4)
    net.output(net.op("Relu", x))
    return net


@pytest.fixture(scope="module")
def pristine(net: Net, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bundles") / "net"
    compile_model(net.model(), path, name="net")
    return path


@pytest.fixture
def bundle(pristine: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pristine, tmp_path / "copy"))


def _edit(bundle: Path, change: Callable[[dict[str, Any]], None]) -> None:
    file = bundle / "manifest.json"
    manifest = json.loads(file.read_text())
    change(manifest)
    file.write_text(json.dumps(manifest))


def test_runs_without_the_compiler(bundle: Path, net: Net) -> None:
    """A fresh process loads and runs the bundle and never imports onnx or tvm."""
    np.savez(bundle.parent / "x.npz", **net.inputs)
    code = (
        "import sys, numpy, tenantdl;"
        f"m = tenantdl.load({str(bundle)!r});"
        f"m.run(dict(numpy.load({str(bundle.parent / 'x.npz')!r})));"
        "print(sorted({'tvm', 'onnx', 'xgboost'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", ["kernels.so", "weights.bin"])
def test_flipped_byte(bundle: Path, name: str) -> None:
    file = bundle / name
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    with pytest.raises(UserError, match=f"{name}: digest differs"):
        load_bundle(bundle)


@pytest.mark.parametrize("name", ["manifest.json", "kernels.so", "weights.bin"])
def test_missing_file(bundle: Path, name: str) -> None:
    (bundle / name).unlink()
    with pytest.raises(UserError, match=name):
        load_bundle(bundle)


@pytest.mark.parametrize("kind", ["pipe", "huge"])
def test_weights_that_are_no_file_of_some_size_are_not_read(bundle: Path, kind: str) -> None:
    """No memory is taken for what a bundle only says it has; a pipe is not waited for."""
    file = bundle / "weights.bin"
    file.unlink()
    if kind == "pipe":
        os.mkfifo(file)
    else:
        with file.open("wb") as stream:
            stream.truncate(WEIGHTS_BYTES_MAX + 1)
    with pytest.raises(UserError, match=r"weights\.bin: is not a file of up to"):
        load_bundle(bundle)


def test_truncated_weights(bundle: Path) -> None:
    """Even with a matching digest, arguments must lie inside the file."""
    from tenantdl.bundle.load import file_digest

    file = bundle / "weights.bin"
    file.write_bytes(file.read_bytes()[:64])
    digest = file_digest(file)
    _edit(bundle, lambda m: m["digests"].update({"weights.bin": digest}))
    with pytest.raises(UserError, match="outside its memory"):
        load_bundle(bundle)


def _set(path: list[Any], value: Any) -> Callable[[dict[str, Any]], None]:
    def change(manifest: dict[str, Any]) -> None:
        place: Any = manifest
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value

    return change


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (["format"], 999, "format 999"),
        (["target", "features"], ["quantum"], "quantum"),
        (["target", "arch"], "pdp11", "pdp11"),
        (["plans", 0, "arena_bytes"], 1, "outside"),
        (["plans", 0, "arena_bytes"], 2**60, "out of bounds"),
        (["plans", 0, "calls", 0, "args", 0, 1], -64, "outside"),
        (["plans", 0, "calls", 0, "args", 0, 1], 4, "unaligned"),
        (["plans", 0, "calls", 0, "args", 0, 3], "float33", "dtype"),
        (["plans", 0, "segments", 0, "begin"], 1, "segments"),
        (["plans", 0, "segments", 0, "part"], 1, "segments"),
        (["plans", 0, "segments", 0, "parts"], 9999, "parts"),
        (["plans", 0, "inputs", 0, "arena_offset"], 2**40, "outside the arena"),
        (["plans", 0, "calls", 0, "symbol"], "system", "not in the library"),
        (["plans"], [], "plans"),
        (["plans", 0, "batch"], 0, "batch"),
        (["plans", 0, "segments", 0, "cost_ns"], -1, "cost_ns"),
        (["plans", 0, "inputs", 0, "dtype"], "FP32", "dtype"),
        (["plans", 0, "outputs", 0, "shape"], [2**40, 2**40], "too large"),
        (["surprise"], 1, "surprise"),
    ],
)
def test_tampered_manifest(bundle: Path, path: list[Any], value: Any, message: str) -> None:
    _edit(bundle, _set(path, value))
    with pytest.raises(UserError, match=message):
        tenantdl.load(bundle).run({})


@given(cut=st.integers(0, 400), junk=st.binary(max_size=40))
def test_mangled_manifest(
    cut: int, junk: bytes, pristine: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Whatever the manifest holds, the answer is a UserError."""
    folder = tmp_path_factory.mktemp("mangled")
    data = (pristine / "manifest.json").read_bytes()
    (folder / "manifest.json").write_bytes(data[:cut] + junk)
    with pytest.raises(UserError):
        load_bundle(folder)


def test_weights_cannot_be_written(bundle: Path) -> None:
    """The mapping is read-only for the whole process: a stray write is a fault."""
    code = (
        f"from tenantdl.bundle.load import load_bundle;load_bundle({str(bundle)!r}).weights[0] = 1"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert done.returncode < 0


def _variant(manifest: dict[str, Any], **changes: Any) -> None:
    plan = manifest["plans"][0]
    figures = [1] * len(plan["segments"])
    variant = {
        **{"goal": "x", "substitutes": [], "cores": [1], "cost_ns": [figures]},
        **{"pressed_ns": [], "private_bytes": figures, "traffic_bytes": figures},
    }
    plan["variants"] = [variant | changes]


def test_variants_are_checked_like_the_plan(bundle: Path) -> None:
    _edit(bundle, _variant)
    call = json.loads((bundle / "manifest.json").read_text())["plans"][0]["calls"][0]
    assert load_bundle(bundle).manifest.plans[0].variants[0].goal == "x"
    outside = call | {"args": [["arena", 2**40, [1], "float32"]]}
    for changes, complaint in (
        ({"substitutes": [[0, outside]]}, "reaches outside"),
        ({"substitutes": [[99, call]]}, "replaces no call"),
        ({"cost_ns": [[1] * 99]}, "do not fit"),
        ({"cores": [2, 1], "cost_ns": [[1], [1]]}, "do not ascend"),
    ):
        _edit(bundle, lambda manifest, changes=changes: _variant(manifest, **changes))
        with pytest.raises(UserError, match=complaint):
            load_bundle(bundle)


def test_a_replaced_library_is_loaded_anew(tmp_path: Path) -> None:
    """Under the same path: the system's loader would hand out the old one, and keeps it."""
    answers = []
    for value in (1, 2):
        source = tmp_path / f"v{value}.c"
        body = f"int tenantdl_run(void) {{ return {value}; }}\n"
        others = ("pool_new", "pool_free", "pool_rest")
        body += "".join(f"void tenantdl_{name}(void) {{}}\n" for name in others)
        source.write_text(body)
        fresh = tmp_path / "fresh.so"
        subprocess.run(["cc", "-shared", "-fPIC", "-o", fresh, source], check=True)
        fresh.rename(tmp_path / "kernels.so")
        library = Library(tmp_path / "kernels.so")
        library.run.argtypes = []
        answers.append(library)
    assert [library.run() for library in answers] == [1, 2]
    maps = Path("/proc/self/maps").read_text
    assert maps().count(str(tmp_path)) > 0
    del library
    answers.clear()
    gc.collect()
    assert str(tmp_path) not in maps()
