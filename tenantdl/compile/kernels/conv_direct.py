"""Direct convolution on packed channels, dense or grouped by whole channel blocks.

Data [N][C/V][H][W][V] (or planar [N][C][H][W] for a stem), weights [O/V][C/V][kh][kw][V][V],
output [N][O/V][H][W][V]. A register tile of `pixels` × `blocks` accumulators stays in registers
through the whole reduction; its epilogue (bias, residual, activation) runs on the accumulators.
Tiles are as even as the width allows: a width of 19 is 10 + 9, not 14 + 5. `conv_chunked` cuts the
reduction.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

from tenantdl.compile.kernels.conv_spec import (
    ConvSchedule,
    ConvSpec,
    is_plane,
    operand_loader,
    operand_shape,
)
from tenantdl.compile.kernels.emit import Emitter, Index, Register, Value
from tenantdl.compile.kernels.layout import Packed, Planar
from tenantdl.compile.kernels.runs import even_runs
from tenantdl.compile.kernels.tiles import UNROLL, Tile
from tenantdl.compile.kernels.vmath import VectorMath


class DirectConv:
    """Emission of one convolution."""

    def __init__(self, e: Emitter, spec: ConvSpec, schedule: ConvSchedule) -> None:
        self.e, self.spec, self.schedule = e, spec, schedule
        self.math = VectorMath(e)
        self.data = e.param("data", spec.data.shape)
        self.weights = e.param("weights", spec.weight_shape)
        self.bias = e.param("bias", (spec.out.blocks, spec.lanes))
        self.gate: Any = None if spec.gate is None else e.param("gate", spec.gate.shape)
        self.operands = [
            e.param(f"operand{i}", operand_shape(operand.layout, operand.access, spec.out))
            for i, operand in enumerate(spec.program.parameters)
        ]
        self.out = e.param("out", spec.out.shape)
        self.own: Index = 0  # first block of weights of the image at hand

    def emit(self) -> None:
        """Parallel over image × row blocks × groups of output blocks."""
        out, schedule = self.spec.out, self.schedule
        height = 1 if is_plane(self.spec) else self.spec.rows
        rows = min(schedule.row_block, height)
        row_blocks = -(-height // rows)
        channel_tasks = -(-out.blocks // schedule.blocks)
        whole, rest = divmod(out.blocks, schedule.blocks)
        with self.e.parallel(out.batch * row_blocks * channel_tasks) as task:
            n = task // (row_blocks * channel_tasks)
            self.own = n * out.blocks if self.spec.own_weights else 0
            y0 = task % (row_blocks * channel_tasks) // channel_tasks * rows
            group = task % channel_tasks
            block = group * schedule.blocks

            def body(blocks: int) -> None:
                extent = rows if height % rows == 0 else _min(rows, height - y0)
                self.rows(n, block, blocks, y0, extent)

            if rest and whole:
                with self.e.branches(group < whole) as (full, tail):
                    with full:
                        body(schedule.blocks)
                    with tail:
                        body(rest)
            else:
                body(rest or schedule.blocks)

    def rows(self, n: Index, block: Index, blocks: int, y0: Index, count: Index) -> None:
        """`count` rows from `y0` on of `blocks` output blocks from `block` on."""
        with self.e.serial(count) as dy:
            for tile in self.tiles(y0, dy):
                self._tile(n, block, blocks, tile)

    def tiles(self, y0: Index, dy: Index) -> Iterator[Tile]:
        """Register tiles of row `dy` of the block of rows from `y0` on, in which they are counted;
        or of the whole small image."""
        rows, columns = self.spec.rows, self.spec.columns
        before = 0
        if is_plane(self.spec):
            for run in even_runs(rows * columns, self.schedule.pixels):
                for tile in range(run.count):
                    first = run.start + tile * run.size

                    def in_plane(i: Index, first: int = first) -> tuple[Index, Index]:
                        return (first + i) // columns, (first + i) % columns

                    yield Tile(before + tile, run.size, in_plane)
                before += run.count
            return
        yield from self.line(columns, y0 + dy, dy)

    def line(self, columns: int, y: Index, before: Index) -> Iterator[Tile]:
        """Register tiles of `columns` pixels of row `y`, behind `before` rows of them."""
        runs = even_runs(columns, self.schedule.pixels)
        number = before * sum(run.count for run in runs)
        for run in runs:
            with self.e.serial(run.count) as tile:
                first = tile * run.size + run.start

                def in_row(i: Index, first: Index = first) -> tuple[Index, Index]:
                    return y, first + i

                yield Tile(number + tile, run.size, in_row)
            number = number + run.count

    def _tile(self, n: Index, block: Index, blocks: int, tile: Tile) -> None:
        e, pixels = self.e, tile.pixels
        self.prefetch_operands(n, block, blocks, tile)
        accumulators = []
        for c in range(blocks):
            bias = e.bind(e.load(self.bias, (block + c, 0)))
            column = [Register(e.lanes) for _ in pixels]
            for register in column:
                register.set(bias)
            accumulators.append(column)
        self.reduce(n, block, accumulators, tile, self.spec.channel_runs)
        for c, column in enumerate(accumulators):
            self.finish([register.get() for register in column], n, block + c, tile)

    def finish(self, column: list[Value], n: Index, block: Index, tile: Tile) -> None:
        """Store one block's pixels through the epilogue."""
        program = self.spec.program
        for value, pixel in zip(column, tile.pixels, strict=True):
            place = self.output(pixel)
            if not program.long:
                load = operand_loader(self.e, program, self.operands, n, block, *place)
                value = program.apply(self.math, value, load)
            self.e.store(self.out, self.spec.out.index(n, block, *place), value)
        if program.long:
            with self.e.serial(tile.size) as i:
                place = self.output(tile.at(i))
                index = self.spec.out.index(n, block, *place)
                load = operand_loader(self.e, program, self.operands, n, block, *place)
                value = self.e.bind(self.e.load(self.out, index))
                self.e.store(self.out, index, program.apply(self.math, value, load))

    def output(self, pixel: tuple[Index, Index]) -> tuple[Index, Index]:
        """Where a computed pixel lies in the output."""
        phase = self.spec.phase
        if phase is None:
            return pixel
        (sy, sx), (oy, ox) = phase.step, phase.offset
        return pixel[0] * sy + oy, pixel[1] * sx + ox

    def reduce(
        self,
        n: Index,
        block: Index,
        accumulators: list[list[Register]],
        tile: Tile,
        channels: list[tuple[Index, int, int]],
    ) -> None:
        """The reduction steps of one tile over runs of channel blocks (first, blocks, channels in
        each), the next weights prefetched along the way."""
        spec, e, pixels = self.spec, self.e, tile.pixels
        (sh, sw), (dh, dw), (top, left) = spec.stride, spec.dilation, spec.pads
        planar = isinstance(spec.data, Planar)

        def at(channel: Index, lane: Index, kh: Index, kw: Index) -> Callable[[Any, Any], Value]:
            def read(y: Index, x: Index) -> Value:
                place = (y * sh + kh * dh - top, x * sw + kw * dw - left)
                if isinstance(spec.data, Planar):
                    return self.data[spec.data.index(n, channel, *place)]
                return self.data[spec.data.index(n, channel, *place, lane)]

            return read

        first = 0 if spec.groups == 1 else self._group_offset(block)
        height, width = spec.kernel
        if planar:
            # Columns outermost: neighbours share scalars, which the compiler would keep and spill.
            with e.serial(width) as kw, e.serial(height) as kh, e.serial(spec.data.channels) as c:
                self._step(at(c, 0, kh, kw), (c, kh, kw), block, accumulators, pixels)
            return
        blocks = len(accumulators)
        every = self.prefetch_interval(blocks)
        slots = sum(count * (lanes // every) for _, count, lanes in channels) * height * width
        done: Index = tile.number * slots
        for c0, count, lanes in channels:
            parts = lanes // every
            with e.serial(count) as dc, e.serial(height) as kh, e.serial(width) as kw:
                c, before = c0 + dc, done + ((dc * height + kh) * width + kw) * parts
                with e.serial(parts) as part:
                    if self.schedule.prefetch_data:
                        y, x = pixels[0]
                        ahead = (y * sh, (x + len(pixels)) * sw + part * every * sw, 0)
                        if height > 1:  # the next row of tiles
                            column = x * sw - left + (kw * parts + part) * every
                            ahead = ((y + 1) * sh + kh * dh - top, column, 0)
                        assert isinstance(spec.data, Packed)
                        e.prefetch(self.data, spec.data.index(n, first + c, *ahead), locality=3)
                    pieces = max(1, every // UNROLL)
                    with e.serial(pieces) as piece:
                        if self.schedule.prefetch_weights:
                            self.prefetch_weights(block, blocks, before + part, piece, pieces)
                        for step in range(every // pieces):
                            lane = part * every + piece * (every // pieces) + step
                            read = at(first + c, lane, kh, kw)
                            gate = self._gate(n, first + c, lane)
                            self._step(read, (c, kh, kw, lane), block, accumulators, pixels, gate)
                for lane in range(parts * every, lanes):
                    read = at(first + c, lane, kh, kw)
                    gate = self._gate(n, first + c, lane)
                    self._step(read, (c, kh, kw, lane), block, accumulators, pixels, gate)
            done = done + count * height * width * parts

    def prefetch_weights(
        self, block: Index, blocks: int, slot: Index, piece: Index, pieces: int
    ) -> None:
        """Ask for line `slot` of the next group's weights, in the first piece of an interval."""
        following = self.own + block + blocks
        with self.e.when(piece == 0) if pieces > 1 else nullcontext():
            self.e.prefetch(self.weights, (following, 0, 0, 0, 0, slot * self.spec.lanes))

    def prefetch_interval(self, blocks: int) -> int:
        """Reduction steps for one line of weights, so that the next group's are spread evenly over
        this one's tiles (kernels.md: the rate matters more than the distance)."""
        return self.spread(blocks, 8) if self.schedule.prefetch_weights else 1

    def spread(self, lines: int, most: int) -> int:
        """Steps between two prefetches, a power of two up to `most`, when each step of a tile has
        `lines` to ask for and the other tiles of the block of rows ask too."""
        spec = self.spec
        plane = is_plane(spec)
        columns = spec.rows * spec.columns if plane else spec.columns
        runs = even_runs(columns, self.schedule.pixels)
        tiles = self.schedule.across or sum(run.count for run in runs)
        tiles *= 1 if plane else min(spec.rows, self.schedule.row_block)
        every = 1
        # A little less than all of it rather than twice as much.
        while lines * 2 * every <= 1.25 * tiles and every < most:
            every *= 2
        return every

    def prefetch_operands(self, n: Index, block: Index, blocks: int, tile: Tile) -> None:
        """Residuals are asked for before the reduction and read behind it."""
        if self.spec.phase is not None:
            return
        for i, operand in enumerate(self.spec.program.parameters):
            if operand.access == "full":
                for c in range(blocks):
                    for y, x in tile.pixels:
                        place = operand.layout.index(n, block + c, y, x)
                        self.e.prefetch(self.operands[i], place, locality=3)

    def _group_offset(self, block: Index) -> Index:
        """First input block of the group that output block `block` belongs to."""
        blocks_of_group = self.spec.out.blocks // self.spec.groups
        return block // blocks_of_group * self.spec.weight_shape[1]

    def _gate(self, n: Index, block: Index, lane: Index) -> Value:
        """What the data of one channel is multiplied by, in every lane; None: nothing."""
        if self.spec.gate is None:
            return None
        return self.e.bind(self.e.splat(self.gate[self.spec.gate.index(n, block, 0, 0, lane)]))

    def _step(
        self,
        read: Callable[[Any, Any], Value],
        reduction: tuple[Index, ...],
        block: Index,
        accumulators: list[list[Register]],
        pixels: list[tuple[Index, Index]],
        gate: Value = None,
    ) -> None:
        """One reduction step: a vector of weights a block (times the gate), a scalar of data a
        pixel."""
        e = self.e
        vectors = [
            e.load(self.weights, (self.own + block + c, *reduction, 0))
            for c in range(len(accumulators))
        ]
        vectors = [e.bind(vector if gate is None else vector * gate) for vector in vectors]
        for i, (y, x) in enumerate(pixels):
            scalar = e.bind(e.splat(read(y, x)))
            for column, vector in zip(accumulators, vectors, strict=True):
                column[i].add(scalar * vector)


def _min(a: Index, b: Index) -> Index:
    from tvm.script.ir_builder import tirx as T

    return T.min(a, b)
