"""Row-major outputs: applying a program to vectors along rows, partial vectors, even splits.

Vectors run along the last dimension. A partial last vector is cut into pieces whose lengths are
powers of two: nothing past the end of a row is read or written, on any instruction set.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from typing import Any

from tvm import tirx
from tvm.script.ir_builder import tirx as T

from tenantdl.compile.kernels.emit import Emitter, Index, Register, Value
from tenantdl.compile.kernels.epilogue import Program
from tenantdl.compile.kernels.runs import even_runs, pieces
from tenantdl.compile.kernels.vmath import VectorMath

_PARALLEL_ELEMENTS_MIN = 8192
KERNELS_KEPT = 64  # a network repeats its layers: building a kernel once saves most of the time


class RowProgram:
    """A program over [rows][columns], with the parameters that it reads.

    Declares them when made: after the kernel's own inputs, before its output. "full" operands have
    the output's shape, "channel" operands one value a column.
    """

    def __init__(self, e: Emitter, program: Program, shape: tuple[int, int]) -> None:
        self._e, self._program = e, program
        self._columns = shape[1]
        self._buffers = [
            e.param(f"operand{i}", shape if operand.access == "full" else shape[1:])
            for i, operand in enumerate(program.parameters)
        ]

    def store(self, out: Any, row: Index, column: Index, value: Value, count: int) -> None:
        """Store the program's result for the first `count` lanes of `value` at (row, column)."""
        for start, lanes in pieces(count, self._e.lanes):
            self.put(out, row, column + start, part(self._e, value, start, lanes), lanes)

    def put(self, out: Any, row: Index, column: Index, value: Value, lanes: int) -> None:
        """Store the program's result for a vector of just `lanes` elements."""
        result = self._apply(VectorMath(self._e, lanes), row, column, value, lanes)
        self._e.store(out, (row, column), result, lanes)

    def prefetch(self, row: Index, column: Index) -> None:
        """Ask for what the program reads at (row, column), beside values of a column."""
        for operand, buffer in zip(self._program.parameters, self._buffers, strict=True):
            if operand.access == "full":
                self._e.prefetch(buffer, (row, column), locality=3)

    def store_tile(self, out: Any, row: Index, block: Index, made: list[list[Register]]) -> None:
        """Store a register tile from (row, block · lanes) on; what lies past the last column is
        dropped. A long program runs in a loop over the stored sums."""
        e, vectors = self._e, len(made[0])
        store = self._keep if self._program.long else self.store
        for i, line in enumerate(made):
            for j, register in enumerate(line):
                for count in self._counts(block, j, vectors):
                    store(out, row + i, (block + j) * e.lanes, register.get(), count)
        if self._program.long:
            with e.serial(len(made)) as i, e.serial(vectors) as j:
                for count in self._counts(block, j, vectors):
                    self._finish(out, row + i, (block + j) * e.lanes, count)

    def _counts(self, block: Index, j: Index, vectors: int) -> Iterator[int]:
        """Bodies for vector `j` of a tile: how many of its lanes are columns."""
        e = self._e
        whole, rest = divmod(self._columns, e.lanes)
        if not rest or (isinstance(j, int) and j < vectors - 1):
            yield e.lanes
            return
        with e.branches(block + j < whole) as (full, partial):
            with full:
                yield e.lanes
            with partial:
                yield rest

    def _keep(self, out: Any, row: Index, column: Index, value: Value, count: int) -> None:
        """Store the first `count` lanes as they are."""
        for start, lanes in pieces(count, self._e.lanes):
            piece = part(self._e, value, start, lanes)
            self._e.store(out, (row, column + start), piece, lanes)

    def _finish(self, out: Any, row: Index, column: Index, count: int) -> None:
        """Apply the program to `count` elements that `_keep` stored."""
        for start, lanes in pieces(count, self._e.lanes):
            at = (row, column + start)
            self.put(out, *at, self._e.bind(self._e.load(out, at, lanes)), lanes)

    def _apply(
        self, math: VectorMath, row: Index, column: Index, value: Value, lanes: int
    ) -> Value:
        def load(i: int) -> Value:
            full = self._program.parameters[i].access == "full"
            index = (row, column) if full else (column,)
            return self._e.load(self._buffers[i], index, lanes)

        return self._program.apply(math, value, load)


def part(e: Emitter, value: Value, start: int, lanes: int) -> Value:
    """Lanes [start, start + lanes) of a vector."""
    if (start, lanes) == (0, e.lanes):
        return value
    return e.bind(tirx.Shuffle([e.bind(value)], list(range(start, start + lanes))))


def cases(e: Emitter, number: Index, extent: int, size_max: int) -> Iterator[tuple[Index, int]]:
    """Bodies for part `number` of `extent` cut evenly: (first element, static size) each.

    The sizes differ by one at most, so there are one or two bodies; the second is emitted in the
    other branch of an `if`.
    """
    runs = even_runs(extent, size_max)
    if len(runs) == 1:
        yield number * runs[0].size, runs[0].size
        return
    first, second = runs
    with e.branches(number < first.count) as (then, other):
        with then:
            yield number * first.size, first.size
        with other:
            yield (number - first.count) * second.size + second.start, second.size


def loops(e: Emitter, extent: int, size_max: int) -> Iterator[tuple[Index, int]]:
    """Serial loops over `extent` cut evenly: (first element, static size) in each body."""
    for run in even_runs(extent, size_max):
        with e.serial(run.count) as i:
            yield i * run.size + run.start, run.size


def spread(e: Emitter, extent: int, elements: int) -> Any:
    """A parallel loop, or a serial one if `elements` take less time than waking other cores."""
    return e.parallel(extent) if elements >= _PARALLEL_ELEMENTS_MIN else e.serial(extent)


def reduce_row(e: Emitter, count: int, load: Callable[[Index, int], Value], combine: str) -> Value:
    """`combine` ("sum" or "max") of `count` ≥ 1 elements as a scalar; `load(column, lanes)` gives
    them as vectors. Four accumulators hide the latency of the combination."""
    function = T.max if combine == "max" else operator.add
    finish = e.reduce_max if combine == "max" else e.reduce_sum
    lanes = e.lanes
    blocks, rest = divmod(count, lanes)
    scalar: Value = None
    if blocks:
        width = min(4, blocks)
        made = [Register(lanes) for _ in range(width)]
        for j, register in enumerate(made):
            register.set(load(j * lanes, lanes))
        with e.serial(blocks // width - 1) as round_:
            for j, register in enumerate(made):
                column = ((round_ + 1) * width + j) * lanes
                register.set(function(register.get(), load(column, lanes)))
        total = made[0].get()
        for register in made[1:]:
            total = e.bind(function(total, register.get()))
        for block in range(blocks // width * width, blocks):
            total = e.bind(function(total, load(block * lanes, lanes)))
        scalar = finish(total)
    for start, length in pieces(rest, lanes):
        value = finish(load(blocks * lanes + start, length), length)
        scalar = value if scalar is None else e.bind(function(scalar, value))
    return scalar


def each_vector(e: Emitter, count: int) -> Iterator[tuple[Index, int]]:
    """Bodies over `count` elements: (first element, vector length), a loop and the pieces."""
    blocks, rest = divmod(count, e.lanes)
    if blocks:
        with e.serial(blocks) as block:
            yield block * e.lanes, e.lanes
    for start, lanes in pieces(rest, e.lanes):
        yield blocks * e.lanes + start, lanes
