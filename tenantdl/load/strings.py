"""Raw bytes of tensors that hold strings (BYTES): each element behind its length, in four bytes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tenantdl.errors import UserError

Array = NDArray[Any]


def parse_strings(name: str, count: int, raw: memoryview) -> Array:
    """The `count` strings of input `name`. Raises UserError."""
    if 4 * count > len(raw):
        raise UserError(f"input {name!r}: {count} BYTES elements in {len(raw)} bytes")
    found = np.empty(count, object)
    at = 0
    for index in range(count):
        length = int.from_bytes(raw[at : at + 4], "little")
        at += 4 + length
        if at > len(raw):
            raise UserError(f"input {name!r}: BYTES element {index} goes beyond the data")
        found[index] = bytes(raw[at - length : at])
    if at != len(raw):
        raise UserError(f"input {name!r}: {len(raw) - at} bytes after its last element")
    return found


def to_bytes(array: Array) -> bytes:
    """The raw bytes of an output."""
    if array.dtype.kind != "O":
        return array.tobytes()
    texts = [one if isinstance(one, bytes) else str(one).encode() for one in array.ravel()]
    return b"".join(len(text).to_bytes(4, "little") + text for text in texts)
