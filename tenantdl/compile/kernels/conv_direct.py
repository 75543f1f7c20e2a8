"""Direct convolution on packed channels, dense or grouped by whole channel blocks.

Data [N][C/V][H][W][V] (or planar [N][C][H][W] for a stem), weights [O/V][C/V][kh][kw][V][V],
output [N][O/V][H][W][V]. A register tile of `pixels` × `blocks` accumulators stays in registers
through the whole reduction; its epilogue (bias, residual, activation) runs on the accumulators.
Tiles are as even as the width allows: a width of 19 is 10 + 9, not 14 + 5.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from tenantdl.compile.kernels.emit import Emitter, Index, Register, Value
from tenantdl.compile.kernels.epilogue import EMPTY, Program
from tenantdl.compile.kernels.layout import Packed, Planar
from tenantdl.compile.kernels.vmath import VectorMath
from tenantdl.compile.operator import Kernel

PLANE_PIXELS_MAX = 100  # images up to this size are tiled across rows, with static addresses


@dataclass(frozen=True, slots=True)
class Phase:
    """Every `step`-th output pixel from `offset` on, `rows` × `columns` of them: one of the
    convolutions that a transposed convolution is made of."""

    step: tuple[int, int]
    offset: tuple[int, int]
    rows: int
    columns: int


@dataclass(frozen=True, slots=True)
class ConvSpec:
    """One convolution. `pads`: rows above and columns left that the kernel reaches out of the
    image. `groups` > 1 needs whole blocks of channels in each group."""

    data: Packed | Planar
    out: Packed
    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    pads: tuple[int, int] = (0, 0)
    groups: int = 1
    program: Program = EMPTY
    phase: Phase | None = None

    @property
    def rows(self) -> int:
        """Rows of output that this convolution computes."""
        return self.out.height if self.phase is None else self.phase.rows

    @property
    def columns(self) -> int:
        """Columns of output that this convolution computes."""
        return self.out.width if self.phase is None else self.phase.columns

    @property
    def lanes(self) -> int:
        """Channel block."""
        return self.out.lanes

    @property
    def steps(self) -> int:
        """Reduction steps: input channels of a group (padded to blocks) × kernel."""
        kh, kw = self.kernel
        if isinstance(self.data, Planar):
            return self.data.channels * kh * kw
        return self.data.blocks // self.groups * self.lanes * kh * kw

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """Shape of the packed weights."""
        head = (self.out.blocks,)
        if isinstance(self.data, Planar):
            return (*head, self.data.channels, *self.kernel, self.lanes)
        return (*head, self.data.blocks // self.groups, *self.kernel, self.lanes, self.lanes)

    def simplified(self) -> ConvSpec:
        """A 1×1 convolution without gaps sees the image as one long row."""
        layouts = [self.data, self.out, *(o.layout for o in self.program.operands if o.layout)]
        plain = self.kernel == (1, 1) and self.stride == (1, 1) and self.pads == (0, 0)
        if not plain or self.phase or not all(isinstance(x, Packed) and x.contiguous for x in layouts):
            return self
        operands = tuple(
            replace(operand, layout=operand.layout.flattened())
            if operand.access == "full"
            else operand
            for operand in self.program.operands
        )
        assert isinstance(self.data, Packed)
        return replace(
            self,
            data=self.data.flattened(),
            out=self.out.flattened(),
            program=replace(self.program, operands=operands),
        )


@dataclass(frozen=True, slots=True)
class ConvSchedule:
    """Knobs. `blocks` × `pixels`: the register tile; `row_block`: rows of the image for which all
    output channels are computed before the next rows (1: data stays in L1, height: weights do).
    `prefetch_weights`: ask for the next group's; `prefetch_data`: for the next tile's pixels."""

    blocks: int
    pixels: int
    row_block: int
    prefetch_weights: bool = False
    prefetch_data: bool = False


@dataclass(frozen=True, slots=True)
class _Run:
    """`count` tiles of `size` pixels each, from pixel `start` on."""

    count: int
    size: int
    start: int


def even_runs(extent: int, size_max: int) -> list[_Run]:
    """Cut `extent` pixels into the fewest tiles of at most `size_max`, sizes differing by one."""
    tiles = -(-extent // size_max)
    small, larger = divmod(extent, tiles)
    runs = []
    if larger:
        runs.append(_Run(larger, small + 1, 0))
    if small and tiles > larger:
        runs.append(_Run(tiles - larger, small, larger * (small + 1)))
    return runs


def conv2d(spec: ConvSpec, schedule: ConvSchedule) -> Kernel:
    """The kernel: parameters data, weights, bias [O/V][V], operands of the program, output."""
    spec = spec.simplified()
    digest = hashlib.sha256(repr((spec, schedule)).encode()).hexdigest()[:12]
    with Emitter(f"conv2d_{digest}", spec.lanes) as e:
        _Conv(e, spec, schedule).emit()
    return e.kernel()


class _Conv:
    """Emission of one convolution."""

    def __init__(self, e: Emitter, spec: ConvSpec, schedule: ConvSchedule) -> None:
        self.e, self.spec, self.schedule = e, spec, schedule
        self.math = VectorMath(e)
        self.data = e.param("data", spec.data.shape)
        self.weights = e.param("weights", spec.weight_shape)
        self.bias = e.param("bias", (spec.out.blocks, spec.lanes))
        self.operands = [
            e.param(f"operand{i}", operand_shape(operand.layout, operand.access, spec.out))
            for i, operand in enumerate(spec.program.parameters)
        ]
        self.out = e.param("out", spec.out.shape)

    def emit(self) -> None:
        """Parallel over image × row blocks × groups of output blocks."""
        out, schedule = self.spec.out, self.schedule
        plane = is_plane(self.spec)
        height = 1 if plane else self.spec.rows
        rows = min(schedule.row_block, height)
        row_blocks = -(-height // rows)
        channel_tasks = -(-out.blocks // schedule.blocks)
        whole, rest = divmod(out.blocks, schedule.blocks)
        with self.e.parallel(out.batch * row_blocks * channel_tasks) as task:
            n = task // (row_blocks * channel_tasks)
            y0 = task % (row_blocks * channel_tasks) // channel_tasks * rows
            group = task % channel_tasks
            block = group * schedule.blocks

            def body(blocks: int) -> None:
                extent = rows if height % rows == 0 else _min(rows, height - y0)
                with self.e.serial(extent) as dy:
                    for number, pixels in self._tiles(y0 + dy, plane):
                        self._tile(n, block, blocks, pixels, number)

            if rest and whole:
                with self.e.branches(group < whole) as (full, tail):
                    with full:
                        body(schedule.blocks)
                    with tail:
                        body(rest)
            else:
                body(rest or schedule.blocks)

    def _tiles(self, y: Index, plane: bool) -> Iterator[tuple[Index, list[tuple[Index, Index]]]]:
        """Register tiles of a row (or of the whole small image): number and output pixels."""
        rows, columns = self.spec.rows, self.spec.columns
        before = 0
        if plane:
            for run in even_runs(rows * columns, self.schedule.pixels):
                for tile in range(run.count):
                    first = run.start + tile * run.size
                    yield before + tile, [divmod(first + i, columns) for i in range(run.size)]
                before += run.count
            return
        tiles_of_row = sum(run.count for run in even_runs(columns, self.schedule.pixels))
        for run in even_runs(columns, self.schedule.pixels):
            with self.e.serial(run.count) as tile:
                first = tile * run.size + run.start
                number = y * tiles_of_row + before + tile
                yield number, [(y, first + i) for i in range(run.size)]
            before += run.count

    def _tile(
        self, n: Index, block: Index, blocks: int, pixels: list[tuple[Index, Index]], number: Index
    ) -> None:
        e = self.e
        self._prefetch_operands(n, block, blocks, pixels)
        accumulators = []
        for c in range(blocks):
            bias = e.bind(e.load(self.bias, (block + c, 0)))
            column = [Register(e.lanes) for _ in pixels]
            for register in column:
                register.set(bias)
            accumulators.append(column)
        self._reduce(n, block, accumulators, pixels, number)
        for c, column in enumerate(accumulators):
            for register, (y, x) in zip(column, pixels, strict=True):
                self._store(register.get(), n, block + c, y, x)

    def _reduce(
        self,
        n: Index,
        block: Index,
        accumulators: list[list[Register]],
        pixels: list[tuple[Index, Index]],
        number: Index,
    ) -> None:
        """All reduction steps of one tile, the next weights prefetched along the way."""
        spec, e = self.spec, self.e
        (sh, sw), (dh, dw), (top, left) = spec.stride, spec.dilation, spec.pads
        planar = isinstance(spec.data, Planar)

        def at(channel: Index, lane: Index, kh: Index, kw: Index) -> Callable[[Any, Any], Value]:
            def read(y: Index, x: Index) -> Value:
                place = (y * sh + kh * dh - top, x * sw + kw * dw - left)
                if isinstance(spec.data, Planar):
                    return self.data[spec.data.index(n, channel, *place)]
                return self.data[spec.data.index(n, channel, *place, lane)]

            return read

        outer = spec.data.channels if planar else spec.weight_shape[1]
        first = 0 if spec.groups == 1 else self._group_offset(block)
        height, width = spec.kernel
        every = self._prefetch_interval(len(accumulators))
        with e.serial(outer) as c, e.serial(height) as kh, e.serial(width) as kw:
            if planar:
                self._step(at(c, 0, kh, kw), (c, kh, kw), block, accumulators, pixels)
                return
            with e.serial(spec.lanes // every) as part:
                if self.schedule.prefetch_weights:
                    done = ((c * height + kh) * width + kw) * (spec.lanes // every) + part
                    line = number * (spec.steps // every) + done
                    e.prefetch(
                        self.weights, (block + len(accumulators), 0, 0, 0, 0, line * spec.lanes)
                    )
                if self.schedule.prefetch_data:
                    y, x = pixels[0]
                    ahead = (y * sh, (x + len(pixels)) * sw + part * every * sw, 0)
                    e.prefetch(self.data, spec.data.index(n, first + c, *ahead), locality=3)
                for step in range(every):
                    lane = part * every + step
                    read = at(first + c, lane, kh, kw)
                    self._step(read, (c, kh, kw, lane), block, accumulators, pixels)

    def _prefetch_interval(self, blocks: int) -> int:
        """Reduction steps for one line of weights, so that the next group's are spread evenly over
        this one's tiles (kernels.md: the rate matters more than the distance)."""
        if not self.schedule.prefetch_weights:
            return 1
        spec = self.spec
        plane = is_plane(spec)
        columns = spec.rows * spec.columns if plane else spec.columns
        tiles = sum(run.count for run in even_runs(columns, self.schedule.pixels))
        tiles *= 1 if plane else spec.rows
        every = 1
        while blocks * every * 2 <= tiles and every < 8:
            every *= 2
        return every

    def _prefetch_operands(
        self, n: Index, block: Index, blocks: int, pixels: list[tuple[Index, Index]]
    ) -> None:
        """Residuals are asked for before the reduction and read behind it."""
        if self.spec.phase is not None:
            return
        for i, operand in enumerate(self.spec.program.parameters):
            if operand.access == "full":
                for c in range(blocks):
                    for y, x in pixels:
                        place = operand.layout.index(n, block + c, y, x)
                        self.e.prefetch(self.operands[i], place, locality=3)

    def _group_offset(self, block: Index) -> Index:
        """First input block of the group that output block `block` belongs to."""
        blocks_of_group = self.spec.out.blocks // self.spec.groups
        return block // blocks_of_group * self.spec.weight_shape[1]

    def _step(
        self,
        read: Callable[[Any, Any], Value],
        reduction: tuple[Index, ...],
        block: Index,
        accumulators: list[list[Register]],
        pixels: list[tuple[Index, Index]],
    ) -> None:
        """One reduction step: a vector of weights a block, a scalar of data a pixel."""
        e = self.e
        vectors = [
            e.bind(e.load(self.weights, (block + c, *reduction, 0)))
            for c in range(len(accumulators))
        ]
        for i, (y, x) in enumerate(pixels):
            scalar = e.bind(e.splat(read(y, x)))
            for column, vector in zip(accumulators, vectors, strict=True):
                column[i].add(scalar * vector)

    def _store(self, value: Value, n: Index, block: Index, y: Index, x: Index) -> None:
        spec = self.spec
        if spec.phase is not None:
            y = y * spec.phase.step[0] + spec.phase.offset[0]
            x = x * spec.phase.step[1] + spec.phase.offset[1]
        load = operand_loader(self.e, spec.program, self.operands, n, block, y, x)
        result = spec.program.apply(self.math, value, load)
        self.e.store(self.out, spec.out.index(n, block, y, x), result)


def is_plane(spec: ConvSpec) -> bool:
    """Whether the (simplified) image is small enough to be tiled across rows."""
    rows, columns = spec.rows, spec.columns
    return 1 < rows and rows * columns <= PLANE_PIXELS_MAX and columns < 12


def operand_shape(layout: Any, access: str, out: Packed) -> tuple[int, ...]:
    """Shape of an operand of a program over packed output `out`."""
    if access == "full":
        return tuple(layout.shape)
    if access == "image":
        return tuple(layout.shape)
    return (out.blocks, out.lanes)


def operand_loader(
    e: Emitter, program: Program, buffers: list[Any], n: Index, block: Index, y: Index, x: Index
) -> Callable[[int], Value]:
    """`load(i)` for `Program.apply` at one pixel of a packed output."""

    def load(i: int) -> Value:
        operand = program.parameters[i]
        if operand.access == "full":
            return e.load(buffers[i], operand.layout.index(n, block, y, x))
        if operand.access == "image":
            return e.load(buffers[i], operand.layout.index(n, block, 0, 0))
        return e.load(buffers[i], (block, 0))

    return load


def _min(a: Index, b: Index) -> Index:
    from tvm.script.ir_builder import tirx as T

    return T.min(a, b)
