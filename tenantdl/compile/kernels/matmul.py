"""MatMul of two values (or constants with a batch): batches broadcast, the right side unpacked.

A task takes a few vectors of columns of one batch. If they serve many rows, or are partial, it
copies them to a dense panel first; then register tiles pass over all rows.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from tvm.script.ir_builder import tirx as T

from tenantdl.compile.context import Context, Form, Group
from tenantdl.compile.fusion import bind_program
from tenantdl.compile.graph import Node
from tenantdl.compile.kernels.emit import Emitter, Index, Register
from tenantdl.compile.kernels.epilogue import EMPTY, Program
from tenantdl.compile.kernels.registry import Template
from tenantdl.compile.kernels.rows import KERNELS_KEPT, RowProgram, cases, loops
from tenantdl.compile.kernels.tiles import multiply
from tenantdl.compile.operator import Kernel
from tenantdl.compile.target import CpuTarget

_COPY_ROWS_MIN = 8  # from that many rows on, copying the panel pays
_TILE_ROWS_MAX = 8

Strides = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class MatmulSpec:
    """[batch…][rows][inner] · [batch…][inner][columns]. `left`, `right`: matrices of each side;
    their strides count matrices, 0 where a side repeats."""

    batch: tuple[int, ...]
    rows: int
    inner: int
    columns: int
    left: int
    right: int
    left_strides: Strides
    right_strides: Strides
    lanes: int
    program: Program = EMPTY


@dataclass(frozen=True, slots=True)
class MatmulSchedule:
    """The register tile, rows × vectors, and the rows of a task."""

    rows: int
    vectors: int
    task_rows: int


@lru_cache(maxsize=KERNELS_KEPT)
def matmul(spec: MatmulSpec, schedule: MatmulSchedule) -> Kernel:
    """The kernel: parameters a [left·rows][inner], b [right·inner][columns], operands, out
    [batch·rows][columns]."""
    digest = hashlib.sha256(repr((spec, schedule)).encode()).hexdigest()[:12]
    with Emitter(f"matmul_{digest}", spec.lanes) as e:
        _Matmul(e, spec, schedule).emit()
    return e.kernel()


class _Matmul:
    """Emission of one kernel."""

    def __init__(self, e: Emitter, spec: MatmulSpec, schedule: MatmulSchedule) -> None:
        self.e, self.spec, self.schedule = e, spec, schedule
        self.a = e.param("a", (spec.left * spec.rows, spec.inner))
        self.b = e.param("b", (spec.right * spec.inner, spec.columns))
        shape = (math.prod(spec.batch) * spec.rows, spec.columns)
        self.program = RowProgram(e, spec.program, shape)
        self.out = e.param("out", shape)
        self.blocks = -(-spec.columns // e.lanes)
        self.rest = spec.columns % e.lanes
        self.copies = bool(self.rest) or schedule.task_rows >= _COPY_ROWS_MIN

    def emit(self) -> None:
        """Parallel over batches × parts of the rows × panels."""
        e, spec, schedule = self.e, self.spec, self.schedule
        parts = -(-spec.rows // schedule.task_rows)
        panels = -(-self.blocks // schedule.vectors)
        with e.parallel(math.prod(spec.batch) * parts * panels) as task:
            batch, part, panel = task // (parts * panels), task // panels % parts, task % panels
            left = self._matrix(batch, spec.left_strides) * spec.rows
            right = self._matrix(batch, spec.right_strides) * spec.inner
            for row, rows in cases(e, part, spec.rows, schedule.task_rows):
                for block, vectors in cases(e, panel, self.blocks, schedule.vectors):
                    weights, place = self._panel(right, block, vectors)
                    for i, count in loops(e, rows, schedule.rows):
                        made = [e.registers(vectors) for _ in range(count)]
                        self._reduce(made, left + row + i, weights, place)
                        self.program.store_tile(self.out, batch * spec.rows + row + i, block, made)

    def _matrix(self, batch: Index, strides: Strides) -> Index:
        """Which matrix of a side serves this batch."""
        number: Index = 0
        for extent, stride in zip(self.spec.batch[::-1], strides[::-1], strict=True):
            number = number + batch % extent * stride
            batch = batch // extent
        return number

    def _panel(self, right: Index, block: Index, vectors: int) -> tuple[Any, tuple[Index, Index]]:
        """Buffer with the columns of a panel, and where its first row begins."""
        e, spec = self.e, self.spec
        if not self.copies:
            return self.b, (right, block * e.lanes)
        panel = e.scratch((spec.inner, vectors * e.lanes))
        with e.serial(spec.inner) as k:
            for j in range(vectors):
                column = (block + j) * e.lanes
                if not self.rest or j < vectors - 1:
                    e.store(panel, (k, j * e.lanes), e.load(self.b, (right + k, column)))
                    continue
                with e.branches(block + j < self.blocks - 1) as (whole, partial):
                    with whole:
                        e.store(panel, (k, j * e.lanes), e.load(self.b, (right + k, column)))
                    with partial:
                        e.store(panel, (k, j * e.lanes), e.splat(0.0))
                        with e.serial(self.rest) as lane:
                            source = self.b[right + k, column + lane]
                            T.buffer_store(panel, source, [k, j * e.lanes + lane])
        return panel, (0, 0)

    def _reduce(
        self, made: list[list[Register]], row: Index, weights: Any, place: tuple[Index, Index]
    ) -> None:
        e = self.e
        with e.serial(self.spec.inner) as k:
            vectors = [
                e.bind(e.load(weights, (place[0] + k, place[1] + j * e.lanes)))
                for j in range(len(made[0]))
            ]
            for i, line in enumerate(made):
                multiply(e, line, self.a[row + i, k], vectors)


def choose(spec: MatmulSpec, target: CpuTarget, cores: int) -> MatmulSchedule:
    """A tile within the registers; rows are divided if batches and panels leave cores idle."""
    blocks = -(-spec.columns // spec.lanes)
    vectors = min(blocks, 4 if target.registers >= 32 else 2)
    rows = min(_TILE_ROWS_MAX, (target.registers - 1 - vectors) // vectors, spec.rows)
    tasks = math.prod(spec.batch) * -(-blocks // vectors)
    parts = 1
    while (
        -(-tasks * parts // cores) * cores > 1.2 * tasks * parts and spec.rows >= rows * parts * 2
    ):
        parts += 1
    return MatmulSchedule(rows, vectors, -(-spec.rows // parts))


def _form(context: Context, node: Node) -> Form | None:
    a, b = (context.type(name) for name in node.inputs)
    out = context.type(node.outputs[0])
    fits = a.dtype == b.dtype == "float32" and a.size and b.size and out.size
    return "plain" if fits and len(a.shape) >= 2 and len(b.shape) >= 2 else None


def _lower(context: Context, group: Group) -> None:
    node = group.anchor
    a, b = (context.type(name).shape for name in node.inputs)
    sources = tuple(context.plain(name) for name in node.inputs)
    program, operands = bind_program(context, group, "plain")
    batch = tuple(np.broadcast_shapes(a[:-2], b[:-2]))
    rows = a[-2]
    if math.prod(b[:-2]) == 1:  # one matrix for all: batches are rows
        batch, rows = (), math.prod(a[:-1])
        a, b = (rows, a[-1]), b[-2:]
    spec = MatmulSpec(
        batch,
        rows,
        a[-1],
        b[-1],
        math.prod(a[:-2]),
        math.prod(b[:-2]),
        _strides(a[:-2], batch),
        _strides(b[:-2], batch),
        context.target.lanes,
        program,
    )
    kernel = matmul(spec, choose(spec, context.target, context.cores))
    args = (*sources, *operands, context.new_plain(group.output))
    flops = 2 * math.prod(batch) * rows * a[-1] * b[-1]
    context.emit(group.name, "matmul", kernel, args, flops=flops)


def _strides(own: tuple[int, ...], batch: tuple[int, ...]) -> Strides:
    """Matrices between neighbours along each batch dimension."""
    own = (1,) * (len(batch) - len(own)) + own
    strides, step = [], 1
    for extent in own[::-1]:
        strides.append(step if extent > 1 else 0)
        step *= extent
    return tuple(strides[::-1])


TEMPLATES = {"MatMul": Template(_form, _lower, fuses=True)}
