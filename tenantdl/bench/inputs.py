"""Inputs for a model whose meaning is unknown: right in shape and dtype, the same for a seed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tenantdl.bundle.manifest import Tensor
from tenantdl.errors import UserError

Array = NDArray[Any]

# Whole numbers are often ids into a table of unknown size: small ones are always inside.
_INTEGER_BELOW = 2


def random_inputs(tensors: Sequence[Tensor], seed: int) -> dict[str, Array]:
    """One array for each of `tensors`: floats are standard normal, whole numbers 0 or 1."""
    generator = np.random.default_rng(seed)
    return {t.name: _random(t.shape, np.dtype(t.dtype), generator) for t in tensors}


def _random(shape: tuple[int, ...], dtype: np.dtype[Any], generator: np.random.Generator) -> Array:
    if dtype.kind == "f":
        return generator.standard_normal(shape, np.float32).astype(dtype)
    if dtype.kind in "iub":
        return generator.integers(0, _INTEGER_BELOW, shape).astype(dtype)
    raise UserError(f"no random values for dtype {dtype}: give inputs in a file")
