"""Direct convolution with the reduction in chunks, for layers of many weights and few pixels.

A chunk of the weights of one group of output blocks stays in L1 while it meets all pixels; their
partial sums wait in a small buffer. Meanwhile the next chunk is asked for at an even rate, so that
weights that come from memory are as good as warm.

    for each group of output blocks:
        sums = bias
        for each chunk of input channels:
            for each tile of pixels:  sums[tile] += data[chunk] · weights[chunk]
        out = epilogue(sums)
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import nullcontext

from tvm.script.ir_builder import tirx as T

from tenantdl.compile.kernels.conv_direct import DirectConv
from tenantdl.compile.kernels.conv_spec import ConvSchedule, ConvSpec, is_plane, operand_loader
from tenantdl.compile.kernels.emit import Emitter, Index, Register, Value
from tenantdl.compile.kernels.layout import Packed
from tenantdl.compile.kernels.tiles import Tile
from tenantdl.compile.operator import Kernel


def conv2d(spec: ConvSpec, schedule: ConvSchedule) -> Kernel:
    """The kernel: parameters data, weights, bias [O/V][V], gate (if there is one), operands of the
    program, output."""
    spec = spec.simplified().folded(schedule.fold)
    digest = hashlib.sha256(repr((spec, schedule)).encode()).hexdigest()[:12]
    with Emitter(f"conv2d_{digest}", spec.lanes) as e:
        (ChunkedConv if schedule.chunk else DirectConv)(e, spec, schedule).emit()
    return e.kernel()


class ChunkedConv(DirectConv):
    """Emission of one; `schedule.chunk` divides the blocks of input channels, all of them full."""

    def rows(self, n: Index, block: Index, blocks: int, y0: Index, count: Index) -> None:
        """`count` rows from `y0` on: all chunks over them, then the epilogue."""
        e, chunk = self.e, self.schedule.chunk
        height = self.spec.rows if is_plane(self.spec) else self.schedule.row_block
        pixels = min(height, self.spec.rows) * self.spec.columns
        self.sums = e.scratch((pixels, blocks, e.lanes))
        biases = [e.bind(e.load(self.bias, (block + c, 0))) for c in range(blocks)]
        with e.serial(pixels) as pixel:
            for c, bias in enumerate(biases):
                e.store(self.sums, (pixel, c, 0), bias)
        with e.serial(self.spec.data.channels // (chunk * e.lanes)) as number:
            self.number = number
            with e.serial(count) as dy:
                for tile in self.tiles(y0, dy):
                    self._add(n, block, blocks, y0, tile)
        height = self.spec.rows if is_plane(self.spec) else count
        with e.serial(blocks) as c, e.serial(height) as dy, e.serial(self.spec.columns) as x:
            self._finish(
                n, block, c, y0 + dy, x, e.load(self.sums, (dy * self.spec.columns + x, c, 0))
            )

    def tiles(self, y0: Index, dy: Index) -> Iterator[Tile]:
        """Register tiles of a row or an image; those of an image of matrix rows are a loop."""
        spec = self.spec
        pointwise = spec.kernel == spec.stride == (1, 1) and spec.pads == (0, 0)
        linear = isinstance(spec.data, Packed) and spec.data.contiguous
        if is_plane(spec) and pointwise and linear and spec.phase is None:
            yield from self.line(spec.rows * spec.columns, 0, 0)
        else:
            yield from super().tiles(y0, dy)

    def _finish(self, n: Index, block: Index, c: Index, y: Index, x: Index, value: Value) -> None:
        """Store one pixel of one block through the epilogue."""
        e, spec = self.e, self.spec
        place = self.output((y, x))
        load = operand_loader(e, spec.program, self.operands, n, block + c, *place)
        result = spec.program.apply(self.math, e.bind(value), load)
        e.store(self.out, spec.out.index(n, block + c, *place), result)

    def _add(self, n: Index, block: Index, blocks: int, y0: Index, tile: Tile) -> None:
        """What one chunk adds to the sums of one tile."""
        e, chunk = self.e, self.schedule.chunk
        if any(operand.access == "full" for operand in self.spec.program.parameters):
            with e.when(self.number + 1 == self.spec.data.channels // (chunk * e.lanes)):
                self.prefetch_operands(n, block, blocks, tile)
        places = [self._pixel(y0, *at) for at in tile.pixels]
        columns = [[Register(e.lanes) for _ in places] for _ in range(blocks)]
        for c, column in enumerate(columns):
            for register, pixel in zip(column, places, strict=True):
                register.set(e.load(self.sums, (pixel, c, 0)))
        self.reduce(n, block, columns, tile, [(self.number * chunk, chunk, e.lanes)])
        for c, column in enumerate(columns):
            for register, pixel in zip(column, places, strict=True):
                e.store(self.sums, (pixel, c, 0), register.get())

    def _pixel(self, y0: Index, y: Index, x: Index) -> Index:
        """Where a pixel's sums lie."""
        return (y - y0) * self.spec.columns + x

    def prefetch_interval(self, blocks: int) -> int:
        """A line of each block at a time."""
        return self.spread(1, self.e.lanes) if self.schedule.prefetch_weights else 1

    def prefetch_weights(
        self, block: Index, blocks: int, slot: Index, piece: Index, pieces: int
    ) -> None:
        """Ask for line `slot` of the next chunk's weights of every block, some in each piece of the
        interval: this group's, or the first ones of the next group."""
        spec, chunk = self.spec, self.schedule.chunk
        chunks = spec.data.channels // (chunk * spec.lanes)
        last = self.number + 1 == chunks
        first = self.own + block + T.Select(last, blocks, 0)
        channel = T.Select(last, 0, (self.number + 1) * chunk)
        share = -(-blocks // pieces)
        for i in range(share):
            c = piece * share + i
            with self.e.when(c < blocks) if blocks % pieces else nullcontext():
                place = (first + c, channel, 0, 0, 0, slot * spec.lanes)
                self.e.prefetch(self.weights, place)
