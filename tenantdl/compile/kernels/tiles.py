"""Register tiles: which pixels, a step of a product, a square of vectors turned in registers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tvm import tirx

from tenantdl.compile.kernels.emit import Emitter, Index, Register, Value

# Reduction steps written out one after the other. More of them are no faster, and compiling a tile
# of 28 accumulators takes LLVM seconds then.
UNROLL = 4


@dataclass(frozen=True, slots=True)
class Tile:
    """A register tile: `size` output pixels, the i-th at `at(i)`; `number` counts tiles."""

    number: Index
    size: int
    at: Callable[[Index], tuple[Index, Index]]

    @property
    def pixels(self) -> list[tuple[Index, Index]]:
        """(y, x) of every pixel."""
        return [self.at(i) for i in range(self.size)]


def multiply(e: Emitter, line: Sequence[Register], scalar: Value, vectors: list[Value]) -> None:
    """One row of a tile: += scalar · vectors."""
    factor = e.bind(e.splat(scalar))
    for register, vector in zip(line, vectors, strict=True):
        register.add(factor * vector)


def transposed(e: Emitter, rows: list[Value]) -> list[Value]:
    """A square of `lanes` vectors, turned in registers by log2(lanes) rounds of shuffles."""
    lanes = e.lanes
    step = lanes // 2
    while step:
        low = [j if j // step % 2 == 0 else lanes + j - step for j in range(lanes)]
        high = [j + step if j // step % 2 == 0 else lanes + j for j in range(lanes)]
        turned = list(rows)
        for i in range(lanes):
            if i // step % 2 == 0:
                pair = [rows[i], rows[i + step]]
                turned[i] = e.bind(tirx.Shuffle(pair, low))
                turned[i + step] = e.bind(tirx.Shuffle(pair, high))
        rows, step = turned, step // 2
    return rows


def lane_sums(e: Emitter, rows: list[Value]) -> Value:
    """Lane i of the result is the sum over the lanes of vector i, for `lanes` vectors."""
    lanes = e.lanes
    rows = [e.bind(row) for row in rows]
    step = lanes // 2
    while step:
        low = [j if j // step % 2 == 0 else lanes + j - step for j in range(lanes)]
        high = [j + step if j // step % 2 == 0 else lanes + j for j in range(lanes)]
        pairs = zip(rows[:step], rows[step : 2 * step], strict=True)
        rows = [e.bind(tirx.Shuffle([a, b], low) + tirx.Shuffle([a, b], high)) for a, b in pairs]
        step //= 2
    return rows[0]
