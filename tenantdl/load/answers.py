"""Whether the answers to equal requests are alike: what a retried request must not get wrong."""

from __future__ import annotations

import numpy as np

from tenantdl.errors import UserError
from tenantdl.load.protocol import Array, decode_response, response_arrays

# Of the largest number in an output: other core counts and variants add up in another order.
DIFFERENCE_MAX = 1e-3


class Answers:
    """Compares every answer of a stream with the stream's first one. `unlike`: how many differ."""

    def __init__(self, streams: int) -> None:
        self.unlike = 0
        self._first: list[tuple[bytes, dict[str, Array]] | None] = [None] * streams

    def compare(self, stream: int, body: bytes, header_length: str | None) -> None:
        """Take in one answer with status 200."""
        first = self._first[stream]
        if first is not None and first[0] == body:
            return
        try:
            length = int(header_length) if header_length else None
            arrays = response_arrays(decode_response(body, length), memoryview(body)[length:])
        except (UserError, ValueError):
            self.unlike += 1
            return
        if first is None:
            self._first[stream] = body, arrays
        elif not _alike(first[1], arrays):
            self.unlike += 1


def _alike(one: dict[str, Array], other: dict[str, Array]) -> bool:
    if one.keys() != other.keys():
        return False
    for name, left in one.items():
        right = other[name]
        if left.shape != right.shape or left.dtype != right.dtype:
            return False
        if not left.size:
            continue
        left, right = left.astype(np.float64), right.astype(np.float64)
        same = (left == right) | (np.isnan(left) & np.isnan(right))
        apart = np.abs(left[~same] - right[~same]).max(initial=0.0)
        if not apart <= DIFFERENCE_MAX * np.nanmax(np.abs(left)):
            return False
    return True
