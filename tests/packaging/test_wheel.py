"""The wheel: it is built, holds what is not Python, and works in an environment of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Iterator
from email.parser import Parser
from pathlib import Path

import pytest

import tenantdl

ROOT = Path(__file__).resolve().parents[2]
EXTRAS = {"bench", "tracing", "dev"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("build")
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder)]
    done = subprocess.run([*command, str(ROOT)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = folder.glob("*.whl")
    return built


def test_holds_every_file_of_the_package_and_no_other(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    ours = subprocess.run(
        ["git", "ls-files", "tenantdl", "tuning_logs"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    ).stdout.split("\n")
    known = {f"tenantdl/{f}" if f.startswith("tuning_logs") else f for f in ours if f}
    if not known:
        pytest.skip("not in a git repository")
    assert sorted(known - held) == []
    for data in (
        "tenantdl/py.typed",
        "tenantdl/bundle/native/pool.c",
        "tenantdl/daemon/dashboard/index.html",
        "tenantdl/sim/machines/64-core.toml",
    ):
        assert data in held
    assert any(name.startswith("tenantdl/tuning_logs/") for name in held)
    assert any(name.startswith("tenantdl/sim/data/") for name in held)
    assert not any(name.startswith("tests/") or name.endswith(".pyc") for name in held)


def test_says_what_it_is(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        metadata = Parser().parsestr(archive.read(name).decode())
        (scripts,) = (n for n in archive.namelist() if n.endswith("entry_points.txt"))
        assert "tenantdl = tenantdl.cli.main:main" in archive.read(scripts).decode()
    assert metadata["Version"] == tenantdl.__version__
    assert set(metadata.get_all("Provides-Extra", [])) >= EXTRAS
    assert metadata["License-Expression"] == "Apache-2.0"


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A fresh environment with the wheel alone, on top of the packages that are here."""
    folder = tmp_path_factory.mktemp("env") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    pip = [sys.executable, "-m", "pip", "--python", str(folder / "bin/python"), "--quiet"]
    subprocess.run(
        [*pip, "install", "--no-deps", "--no-index", "--disable-pip-version-check", str(wheel)],
        check=True,
    )
    (site,) = folder.glob("lib/python*/site-packages")
    here = sysconfig.get_paths()["purelib"]
    (site / "zz-packages-here.pth").write_text(here + "\n")
    yield folder


def in_it(environment: Path, *command: str) -> str:
    clean = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(
        [str(environment / "bin" / command[0]), *command[1:]],
        capture_output=True,
        text=True,
        cwd=environment,
        env=clean,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


PROGRAM = """
import numpy, onnx, tenantdl
from importlib.resources import files
from onnx import TensorProto as T, helper as h
from tenantdl.sim.machines import load_machine
print(tenantdl.__file__)
assert load_machine("64-core").cores == 64
assert (files("tenantdl.daemon") / "dashboard" / "dashboard.js").is_file()
graph = h.make_graph(
    [h.make_node("Relu", ["x"], ["y"])], "g",
    [h.make_tensor_value_info("x", T.FLOAT, [1, 8])],
    [h.make_tensor_value_info("y", T.FLOAT, [1, 8])],
)
model = h.make_model(graph, opset_imports=[h.make_opsetid("", 18)], ir_version=9)
onnx.save(model, "relu.onnx")
tenantdl.compile("relu.onnx", "relu.bundle")
x = numpy.arange(-4, 4, dtype="float32").reshape(1, 8)
y = tenantdl.load("relu.bundle").run({"x": x})["y"]
assert numpy.array_equal(y, numpy.maximum(x, 0))
"""


def test_works_in_a_fresh_environment(environment: Path) -> None:
    assert in_it(environment, "tenantdl", "--version") == f"tenantdl {tenantdl.__version__}\n"
    assert '"Workload"' in in_it(environment, "tenantdl", "schema")
    where = in_it(environment, "python", "-c", PROGRAM).splitlines()[0]
    assert Path(where).is_relative_to(environment)
