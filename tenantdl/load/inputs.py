"""Inputs for the load: from an .npz file, or seeded random values that any model can take."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tenantdl.bundle.manifest import Tensor
from tenantdl.errors import UserError
from tenantdl.load.protocol import Array

INPUTS_BYTES_MAX = 1024**3


def random_inputs(tensors: Sequence[Tensor], seed: int) -> dict[str, Array]:
    """Standard normal floats; zeros and ones for integers, which are valid ids, masks and flags
    for every vocabulary."""
    rng = np.random.default_rng(seed)
    arrays: dict[str, Array] = {}
    for tensor in tensors:
        dtype = np.dtype(tensor.dtype)
        if dtype.kind in "iub":
            arrays[tensor.name] = rng.integers(0, 2, tensor.shape).astype(dtype)
        else:
            arrays[tensor.name] = rng.standard_normal(tensor.shape).astype(dtype)
    return arrays


def read_inputs(path: str, tensors: Sequence[Tensor]) -> dict[str, Array]:
    """The arrays of an .npz file, checked against `tensors`. Raises UserError."""
    try:
        if Path(path).stat().st_size > INPUTS_BYTES_MAX:
            raise UserError("inputs are too large", where=path)
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise UserError(f"not an .npz of arrays: {error}", where=path) from error
    needed = {tensor.name: (tensor.dtype, tuple(tensor.shape)) for tensor in tensors}
    given = {name: (array.dtype.name, array.shape) for name, array in arrays.items()}
    for name in sorted(needed.keys() | given.keys()):
        if needed.get(name) != given.get(name):
            raise UserError(
                f"input {name!r} is {given.get(name, 'missing')}, "
                f"the model takes {needed.get(name, 'no such input')}",
                where=path,
            )
    return arrays
