"""Models and bundles that experiments need, kept on disk and keyed by everything they depend on.

A bundle's key covers the model's bytes, shapes, target and the compiler's own sources, so that a
changed kernel is never measured through a stale bundle. The folder is $TENANTDL_CACHE, or
~/.cache/tenantdl; it may be deleted at any time.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tenantdl import api, zoo
from tenantdl.api import Progress
from tenantdl.bundle.load import read_manifest
from tenantdl.bundle.manifest import MANIFEST
from tenantdl.errors import UserError
from tenantdl.machine import this_machine

Array = NDArray[Any]
Shapes = Mapping[str, tuple[int, ...]]

_PACKAGE = Path(__file__).resolve().parents[1]
_RECORDS = _PACKAGE.parent / "tuning_logs"
_KEY_DIGITS = 16
_CHUNK_BYTES = 4 * 1024**2


@dataclass(frozen=True, slots=True)
class Source:
    """A model to measure: its ONNX file and, for models of the zoo, realistic inputs."""

    name: str
    file: Path
    samples: Mapping[str, Array] | None


def folder() -> Path:
    """Where everything is kept; made if absent. Raises UserError when it cannot be."""
    default = Path.home() / ".cache" / "tenantdl"
    chosen = Path(os.environ.get("TENANTDL_CACHE") or default)
    try:
        chosen.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot be made: {error.strerror}", where=str(chosen)) from error
    return chosen


def source(name_or_file: str, *, batch: int, seed: int) -> Source:
    """A zoo name (its file is built into the cache on first use) or an ONNX file."""
    if name_or_file not in zoo.names():
        file = Path(zoo.resolve(name_or_file))
        return Source(file.stem, file, None)
    samples = zoo.sample_inputs(name_or_file, batch, seed)
    if zoo.entry(name_or_file).kind == "packaged":
        return Source(name_or_file, zoo.path(name_or_file), samples)
    file = folder() / f"{name_or_file}-{_key([_PACKAGE / 'zoo'], seed)}.onnx"
    if not file.is_file():
        zoo.write(name_or_file, file, seed)
    return Source(name_or_file, file, samples)


def bundle(
    model: Source,
    *,
    batch: int,
    shapes: Shapes,
    target: str = "native",
    progress: Progress | None = None,
) -> Path:
    """The bundle of `model` for `target`, compiled on first use; it has inputs of `shapes`."""
    sized = sorted((name, tuple(shape)) for name, shape in shapes.items())
    values = (batch, sized, target, *_machine())
    key = _key([model.file, _PACKAGE / "compile", _RECORDS], *values)
    out = folder() / f"{model.name}-{key}.bundle"
    if (out / MANIFEST).is_file():
        try:
            read_manifest(out)
        except UserError:
            shutil.rmtree(out)
        else:
            return out
    api.compile(
        model.file,
        out,
        name=model.name,
        target=target,
        batch=batch,
        shapes=shapes or None,
        progress=progress,
    )
    return out


def shapes_of(arrays: Mapping[str, Array]) -> dict[str, tuple[int, ...]]:
    """The shape of each array."""
    return {name: np.shape(array) for name, array in arrays.items()}


def _machine() -> tuple[object, ...]:
    machine = this_machine()
    return machine.arch, machine.model, sorted(machine.features), machine.caches


def _key(files: list[Path], *values: object) -> str:
    """A short digest of the contents of files (folders: all below) and of plain values."""
    digest = hashlib.sha256(repr(values).encode())
    for top in files:
        below = sorted(f for f in top.rglob("*") if f.is_file() and f.suffix != ".pyc")
        for file in below or [top]:
            if not file.is_file():
                continue
            digest.update(file.relative_to(top.parent).as_posix().encode())
            with file.open("rb") as stream:
                while chunk := stream.read(_CHUNK_BYTES):
                    digest.update(chunk)
    return digest.hexdigest()[:_KEY_DIGITS]
