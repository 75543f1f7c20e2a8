"""Tensors in .npz files for `tenantdl run`: read without pickle and within bounds."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tenantdl.bundle.manifest import Tensor
from tenantdl.errors import UserError
from tenantdl.load.inputs import INPUTS_BYTES_MAX

Array = NDArray[Any]

# An .npy member is a header of at most 64 KiB (NumPy's own bound is 10 kB) and the data.
_HEADER_BYTES_MAX = 64 * 1024


def read_inputs(path: Path, tensors: Sequence[Tensor]) -> dict[str, Array]:
    """The arrays of the .npz file at `path` that a model with inputs `tensors` takes.

    An extent of -1 is left open. Raises UserError for anything but one array of the right shape and
    dtype for each input.
    """
    where = str(path)
    wanted = {tensor.name: tensor for tensor in tensors}
    try:
        with zipfile.ZipFile(path) as archive:
            sizes = {info.filename: info.file_size for info in archive.infolist()}
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror}", where=where) from error
    except zipfile.BadZipFile as error:
        raise UserError("is not an .npz file (numpy.savez writes them)", where=where) from error
    names = {file.removesuffix(".npy"): size for file, size in sizes.items()}
    for name in sorted(names.keys() - wanted.keys()):
        raise UserError(f"unknown input {name!r}; the model takes {_list(wanted)}", where=where)
    for name in sorted(wanted.keys() - names.keys()):
        raise UserError(f"input {name!r} is missing: needs {_describe(wanted[name])}", where=where)
    return {name: _read(path, names[name], wanted[name]) for name in wanted}


def write_outputs(path: Path, outputs: Mapping[str, Array]) -> None:
    """Write `outputs` to an .npz file: aside first, then renamed."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.npz")
    try:
        with zipfile.ZipFile(aside, "w") as archive:  # np.savez has no room for an output "file"
            for name, value in outputs.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, value, allow_pickle=False)
        os.replace(aside, path)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise UserError(f"cannot be written: {error.strerror}", where=str(path)) from error


def with_shapes(tensors: Sequence[Tensor], shapes: Mapping[str, Sequence[int]]) -> list[Tensor]:
    """`tensors` with the given `shapes`, by name; a dimension left open (-1) is 1. Raises UserError
    for the shape of an input that is not there."""
    names = {tensor.name: tensor for tensor in tensors}
    for name in shapes:
        if name not in names:
            raise UserError(f"unknown input {name!r}; the model takes {_list(names)}")
    return [
        Tensor(t.name, t.dtype, tuple(shapes.get(t.name, [max(1, e) for e in t.shape])), 0)
        for t in tensors
    ]


def _read(path: Path, size: int, tensor: Tensor) -> Array:
    where = f"{path}, input {tensor.name!r}"
    if size > _bytes_max(tensor) + _HEADER_BYTES_MAX:
        raise UserError(f"is too large: needs {_describe(tensor)}", where=where)
    try:
        with np.load(path, allow_pickle=False) as archive:
            value: Array = archive[tensor.name]
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise UserError(f"cannot be read: {error}", where=where) from error
    fits = len(value.shape) == len(tensor.shape) and all(
        wanted in (-1, given) for given, wanted in zip(value.shape, tensor.shape, strict=True)
    )
    if not fits or value.dtype != np.dtype(tensor.dtype):
        given = f"{value.dtype} {list(value.shape)}"
        raise UserError(f"is {given}, needs {_describe(tensor)}", where=where)
    return value


def _bytes_max(tensor: Tensor) -> int:
    if -1 in tensor.shape:
        return INPUTS_BYTES_MAX
    return int(np.prod(tensor.shape, dtype=np.int64)) * np.dtype(tensor.dtype).itemsize


def _describe(tensor: Tensor) -> str:
    return f"{tensor.dtype} {list(tensor.shape)}"


def _list(tensors: Mapping[str, Tensor]) -> str:
    return ", ".join(f"{name} ({_describe(tensor)})" for name, tensor in tensors.items())
