"""Winograd convolution F(m, r) along one or both axes, on packed channels.

    V = Bᵀ d B   tiles of (m + r − 1)² input pixels    [C/V][point][tile][V]
    M = V · U    one small matmul a point              [blocks][point][tile][V]
    Y = Aᵀ M A   m² output pixels, then the epilogue   U: weights, transformed at compile time

For 3×3, F(4×4) does a quarter of the multiplications of a direct convolution, F(2×2) four ninths;
for five taps along one axis F(4) does two fifths. An axis without extent is left alone, F(1, 1).
Either all tiles are transformed first and output blocks run in parallel (V is shared), or groups
of tile rows run in parallel with V and M of their own, which stay in L2 when images are large.
Weights of the next point are prefetched at an even rate. Channels past the last are skipped.
"""

from __future__ import annotations

import hashlib
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
from tvm.script.ir_builder import tirx as T

from tenantdl.compile.graph import Array
from tenantdl.compile.kernels.conv_spec import ConvSpec, operand_loader, operand_shape
from tenantdl.compile.kernels.emit import Emitter, Index, Value
from tenantdl.compile.kernels.layout import Packed
from tenantdl.compile.kernels.runs import even_runs
from tenantdl.compile.kernels.tiles import UNROLL
from tenantdl.compile.kernels.vmath import VectorMath
from tenantdl.compile.kernels.winograd_transform import Transform
from tenantdl.compile.operator import Kernel


@dataclass(frozen=True, slots=True)
class WinogradSchedule:
    """`rows`, `columns`: the transforms of both axes. `blocks` × `tiles`: the register tile of the
    multiplication. `tile_rows`: rows of tiles handled together; 0 for all, weights outermost.
    `panels`: register tiles to share prefetches out among, in loops; 0: as many as there are."""

    rows: Transform
    columns: Transform
    blocks: int
    tiles: int
    tile_rows: int
    panels: int = 0

    @property
    def points(self) -> int:
        """Matmuls a tile takes part in."""
        return self.rows.points * self.columns.points

    def tile_counts(self, spec: ConvSpec) -> tuple[int, int]:
        """Rows and columns of tiles."""
        return -(-spec.out.height // self.rows.m), -(-spec.out.width // self.columns.m)


def pack_winograd(weights: Array, lanes: int, schedule: WinogradSchedule) -> Array:
    """[O][C][kh][kw] → U [groups][point][C padded][blocks][V], transformed in float64."""
    outputs, channels = weights.shape[:2]
    width = schedule.blocks * lanes
    groups, inputs = -(-outputs // width), -(-channels // lanes) * lanes
    down, across, points = schedule.rows.weights(), schedule.columns.weights(), schedule.points
    full = np.zeros((points, groups * width, inputs), np.float32)
    transformed = np.einsum(
        "ia,ocab,jb->ijoc", down, weights.astype(np.float64), across, optimize=True
    )
    full[:, :outputs, :channels] = transformed.reshape(points, outputs, channels)
    grouped = full.reshape(points, groups, schedule.blocks, lanes, inputs)
    return np.ascontiguousarray(grouped.transpose(1, 0, 4, 2, 3))


def winograd(spec: ConvSpec, schedule: WinogradSchedule) -> Kernel:
    """The kernel: parameters data, U, bias [O/V][V], operands of the program, output."""
    digest = hashlib.sha256(repr((spec, schedule)).encode()).hexdigest()[:12]
    with Emitter(f"winograd_{digest}", spec.lanes) as e:
        _Winograd(e, spec, schedule).emit()
    return e.kernel()


class _Winograd:
    def __init__(self, e: Emitter, spec: ConvSpec, schedule: WinogradSchedule) -> None:
        self.e, self.spec, self.schedule = e, spec, schedule
        self.math = VectorMath(e)
        self.points = schedule.points
        self.inputs = spec.data.blocks  # type: ignore[union-attr]
        self.groups = -(-spec.out.blocks // schedule.blocks)
        self.tile_rows, self.tile_columns = schedule.tile_counts(spec)
        u_shape = (self.groups, self.points, self.inputs * spec.lanes, schedule.blocks, spec.lanes)
        self.data = e.param("data", spec.data.shape)
        self.u = e.param("weights", u_shape)
        self.bias = e.param("bias", (spec.out.blocks, spec.lanes))
        self.operands = [
            e.param(f"operand{i}", operand_shape(operand.layout, operand.access, spec.out))
            for i, operand in enumerate(spec.program.parameters)
        ]
        self.out = e.param("out", spec.out.shape)

    def emit(self) -> None:
        if self.schedule.tile_rows:
            self._emit_row_groups()
        else:
            self._emit_shared()

    def _emit_shared(self) -> None:
        """Transform everything, then all groups of output blocks in parallel."""
        e, batch = self.e, self.spec.out.batch
        tiles = batch * self.tile_rows * self.tile_columns
        v = e.scratch((self.inputs, self.points, tiles + 1, self.spec.lanes))
        with e.parallel(batch * self.inputs) as task:
            n, c = task // self.inputs, task % self.inputs
            with e.serial(self.tile_rows) as ty, e.serial(self.tile_columns) as tx:
                tile = (n * self.tile_rows + ty) * self.tile_columns + tx
                self._transform_input(v, n, c, ty, tx, tile)
        with e.parallel(self.groups) as group:
            products = e.scratch(self._products_shape(tiles))
            self._multiply(v, products, group, tiles)
            with e.serial(batch) as n, e.serial(self.tile_rows) as ty:
                first = (n * self.tile_rows + ty) * self.tile_columns
                self._transform_output_row(products, group, n, ty, first)

    def _emit_row_groups(self) -> None:
        """Groups of tile rows in parallel, everything of theirs private."""
        e, rows = self.e, self.schedule.tile_rows
        row_groups = -(-self.tile_rows // rows)
        tiles = rows * self.tile_columns
        with e.parallel(self.spec.out.batch * row_groups) as task:
            n, first_row = task // row_groups, task % row_groups * rows
            v = e.scratch((self.inputs, self.points, tiles + 1, self.spec.lanes))
            products = e.scratch(self._products_shape(tiles))
            extent = rows if self.tile_rows % rows == 0 else T.min(rows, self.tile_rows - first_row)
            loops = e.serial(self.inputs), e.serial(extent), e.serial(self.tile_columns)
            with loops[0] as c, loops[1] as row, loops[2] as tx:
                tile = row * self.tile_columns + tx
                self._transform_input(v, n, c, first_row + row, tx, tile)
            with e.serial(self.groups) as group:
                self._multiply(v, products, group, tiles)
                with e.serial(extent) as row:
                    first = row * self.tile_columns
                    self._transform_output_row(products, group, n, first_row + row, first)

    def _products_shape(self, tiles: int) -> tuple[int, ...]:
        return (self.schedule.blocks, self.points, tiles + 1, self.spec.lanes)

    def _transform_input(
        self, v: object, n: Index, c: Index, ty: Index, tx: Index, tile: Index
    ) -> None:
        """V of one tile of one channel block: columns first, then rows."""
        e, spec = self.e, self.spec
        down, across = self.schedule.rows, self.schedule.columns
        top, left = spec.pads
        assert isinstance(spec.data, Packed)
        columns: list[list[Value]] = []
        for j in range(across.points):
            x = tx * across.m + j - left
            ys = [ty * down.m + i - top for i in range(down.points)]
            pixels = [e.bind(e.load(self.data, spec.data.index(n, c, y, x, 0))) for y in ys]
            columns.append([e.bind(value) for value in down.input(self.math, pixels)])
        for i in range(down.points):
            row = [column[i] for column in columns]
            for j, value in enumerate(across.input(self.math, row)):
                e.store(v, (c, i * across.points + j, tile, 0), value)

    def _multiply(self, v: object, products: object, group: Index, tiles: int) -> None:
        """M[point] = V[point] · U[point] for one group of output blocks."""
        e = self.e
        runs = [
            (run.start + i * run.size, run.size)
            for run in even_runs(tiles, self.schedule.tiles)
            for i in range(run.count)
        ]
        with e.serial(self.points) as point:
            if len(runs) <= 8 and not self.schedule.panels:
                for number, (start, size) in enumerate(runs):
                    self._panel(v, products, group, point, start, size, number, len(runs))
                return
            for run in even_runs(tiles, self.schedule.tiles):
                with e.serial(run.count) as i:
                    start = i * run.size + run.start
                    self._panel(v, products, group, point, start, run.size, i, len(runs))

    def _panel(
        self,
        v: object,
        products: object,
        group: Index,
        point: Index,
        start: Index,
        size: int,
        number: Index,
        panels: int,
    ) -> None:
        """Tiles [start, start + size) of one point: the register tile of the multiplication."""
        e, lanes, blocks = self.e, self.spec.lanes, self.schedule.blocks
        accumulators = [e.registers(size) for _ in range(blocks)]
        every = 1  # reduction steps a prefetched line: spread next point's weights over all panels
        while blocks * every * 2 <= (self.schedule.panels or panels) and every < lanes:
            every *= 2
        inputs = self.inputs * lanes
        shared = not self.schedule.tile_rows

        def step(c: Index, lane: Index) -> None:
            vectors = [
                e.bind(e.load(self.u, (group, point, c * lanes + lane, b, 0)))
                for b in range(blocks)
            ]
            for i in range(size):
                scalar = e.bind(e.splat(v[c, point, start + i, lane]))  # type: ignore[index]
                for column, vector in zip(accumulators, vectors, strict=True):
                    column[i].add(scalar * vector)

        whole, rest = divmod(self.spec.data.channels, lanes)
        pieces = max(1, every // UNROLL)
        with e.serial(whole) as c, e.serial(lanes // every) as outer:
            line = (number * (inputs // every) + c * (lanes // every) + outer) * lanes
            e.prefetch(self.u, (group, point + 1, 0, 0, line))
            with e.serial(pieces) as piece:
                for i in range(every // pieces):
                    lane = outer * every + piece * (every // pieces) + i
                    if shared:  # half of it or more lies in other cores' caches
                        e.prefetch(v, (c, point + 1, start + lane, 0))
                    step(c, lane)
        with e.serial(rest) as lane:
            step(whole, lane)
        for b, column in enumerate(accumulators):
            for i, register in enumerate(column):
                e.store(products, (b, point, start + i, 0), register.get())

    def _transform_output_row(
        self, products: object, group: Index, n: Index, ty: Index, first: Index
    ) -> None:
        """Output pixels of one row of tiles for one group of output blocks."""
        e, blocks = self.e, self.schedule.blocks
        rest = self.spec.out.blocks % blocks
        count = blocks
        if rest:
            count = T.min(blocks, self.spec.out.blocks - group * blocks)
        with e.serial(count) as b, e.serial(self.tile_columns) as tx:
            self._transform_output(products, b, group * blocks + b, n, ty, tx, first + tx)

    def _transform_output(
        self,
        products: object,
        b: Index,
        block: Index,
        n: Index,
        ty: Index,
        tx: Index,
        tile: Index,
    ) -> None:
        e, down, across = self.e, self.schedule.rows, self.schedule.columns
        columns = []
        for j in range(across.points):
            numbers = [i * across.points + j for i in range(down.points)]
            points = [e.bind(e.load(products, (b, number, tile, 0))) for number in numbers]
            columns.append([e.bind(x) for x in down.output(self.math, points)])
        bias = e.bind(e.load(self.bias, (block, 0)))
        for i in range(down.m):
            row = across.output(self.math, [column[i] for column in columns])
            for j, value in enumerate([e.bind(x) for x in row]):
                with self._inside(ty, tx, i, j):
                    self._store(value + bias, n, block, ty * down.m + i, tx * across.m + j)
        if self.spec.program.long:
            out = self.spec.out
            loops = _within(ty, down.m, out.height), _within(tx, across.m, out.width)
            with e.serial(loops[0]) as i, e.serial(loops[1]) as j:
                y, x = ty * down.m + i, tx * across.m + j
                self._apply(e.bind(e.load(self.out, out.index(n, block, y, x))), n, block, y, x)

    def _store(self, value: Value, n: Index, block: Index, y: Index, x: Index) -> None:
        """One output pixel: through the epilogue, or as it is for a second pass."""
        if self.spec.program.long:
            self.e.store(self.out, self.spec.out.index(n, block, y, x), value)
        else:
            self._apply(value, n, block, y, x)

    def _apply(self, value: Value, n: Index, block: Index, y: Index, x: Index) -> None:
        spec = self.spec
        load = operand_loader(self.e, spec.program, self.operands, n, block, y, x)
        result = spec.program.apply(self.math, value, load)
        self.e.store(self.out, spec.out.index(n, block, y, x), result)

    def _inside(self, ty: Index, tx: Index, i: int, j: int) -> AbstractContextManager[None]:
        """Statements for pixel (i, j) of a tile, run only where it lies in the image."""
        out = self.spec.out
        conditions = []
        if i >= out.height - (self.tile_rows - 1) * self.schedule.rows.m:
            conditions.append(ty < self.tile_rows - 1)
        if j >= out.width - (self.tile_columns - 1) * self.schedule.columns.m:
            conditions.append(tx < self.tile_columns - 1)
        if not conditions:
            return nullcontext()
        return self.e.when(conditions[0] if len(conditions) == 1 else T.And(*conditions))


def _within(tile: Index, m: int, extent: int) -> Index:
    """Pixels of tile number `tile` that lie in the image."""
    return m if extent % m == 0 else T.min(m, extent - tile * m)
