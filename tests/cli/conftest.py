"""A command line to type into, and a bundle's manifest to show."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import msgspec
import pytest

from tenantdl.bundle.manifest import (
    FORMAT,
    LIBRARY,
    MANIFEST,
    WEIGHTS,
    Argument,
    Call,
    Manifest,
    Plan,
    Segment,
    Target,
    Tensor,
)
from tenantdl.cli.main import run

Typed: TypeAlias = tuple[int, str, str]
Cli: TypeAlias = Callable[..., Typed]


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Types a command line; answers exit code, stdout, stderr."""
    monkeypatch.setenv("TENANTDL_DEBUG", "")

    def type_in(*arguments: str) -> Typed:
        code = run(arguments)
        shown = capsys.readouterr()
        return code, shown.out, shown.err

    return type_in


@pytest.fixture
def manifest() -> Manifest:
    """A manifest of three calls, one of them generic."""
    argument = Argument("arena", 0, (1, 3), "float32")
    calls = tuple(
        Call(f"op{i}", kind, f"k{i}", (argument, argument), flops, 24)
        for i, (kind, flops) in enumerate([("conv", 600), ("conv", 300), ("generic", 100)])
    )
    plan = Plan(
        batch=1,
        arena_bytes=4096,
        inputs=(Tensor("x", "float32", (1, 3), 0),),
        outputs=(Tensor("y", "float32", (1, 3), 64),),
        calls=calls,
        segments=(Segment(0, 2, 1_500_000), Segment(2, 3, 500_000)),
        cost_source="measured",
    )
    return Manifest(
        format=FORMAT,
        name="tiny",
        created_by="tenantdl 0",
        source="00",
        target=Target("x86_64", "haswell", ("avx2", "fma")),
        machine={},
        cores=(1, 2),
        digests={},
        plans=(plan,),
        summary={"seconds": {"frontend": 1.25, "kernels": 2.5}},
    )


@pytest.fixture
def bundle(tmp_path: Path, manifest: Manifest) -> Path:
    """A bundle's folder with that manifest; its library and weights are empty."""
    folder = tmp_path / "tiny.bundle"
    folder.mkdir()
    (folder / MANIFEST).write_bytes(msgspec.json.encode(manifest))
    (folder / LIBRARY).write_bytes(b"")
    (folder / WEIGHTS).write_bytes(b"\0" * 2048)
    return folder
