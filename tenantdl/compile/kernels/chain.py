"""A convolution, the depthwise one behind it and perhaps a 1×1 one behind that, row by row.

The blocks of mobile networks widen an image, filter it channel by channel and narrow it again. What
lies between is several times larger than input and output, too large for L2 in early layers, so it
is never written to memory: a ring of as many rows as the depthwise kernel is high holds it.

    for each output row:
        for each channel block:
            first      1×1 (or a stem on a row-major image): the rows that are new → ring
            depthwise  ring → a row of the filtered image, kept (the output, if there is no last)
        last           1×1: that row → output

A task is a strip of rows, or one channel block of it if there is no last convolution; it computes
again the rows that its neighbour has in its ring. Channel sums of the output can be made on the
way (the pooling of squeeze-and-excite).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from tvm.script.ir_builder import tirx as T

from tenantdl.compile.kernels.chain_spec import ChainSchedule, ChainSpec, channel_runs
from tenantdl.compile.kernels.conv_spec import operand_loader, operand_shape
from tenantdl.compile.kernels.emit import Emitter, Index, Register, Value
from tenantdl.compile.kernels.epilogue import Program
from tenantdl.compile.kernels.layout import Packed, Planar
from tenantdl.compile.kernels.patch import Patch
from tenantdl.compile.kernels.rows import KERNELS_KEPT
from tenantdl.compile.kernels.runs import even_runs
from tenantdl.compile.kernels.tiles import multiply
from tenantdl.compile.kernels.vmath import VectorMath
from tenantdl.compile.operator import Kernel

# Block, pixel of a tile and lane → that element.
Scalar = Callable[[Index, int, Index], Value]


@lru_cache(maxsize=KERNELS_KEPT)
def chain(spec: ChainSpec, schedule: ChainSchedule) -> Kernel:
    """The kernel. Parameters: data; weights, bias and operands of first, depthwise and last
    convolution; output; sums [N][strips][blocks][V] if asked for."""
    digest = hashlib.sha256(repr((spec, schedule)).encode()).hexdigest()[:12]
    with Emitter(f"chain_{digest}", spec.out.lanes) as e:
        _Chain(e, spec, schedule).emit()
    return e.kernel()


class _Chain:
    def __init__(self, e: Emitter, spec: ChainSpec, schedule: ChainSchedule) -> None:
        self.e, self.spec, self.schedule = e, spec, schedule
        self.math = VectorMath(e)
        middle, out, lanes = spec.middle, spec.out, spec.out.lanes
        self.data = e.param("data", spec.data.shape)
        inner = spec.data.channels if isinstance(spec.data, Planar) else spec.data.blocks
        lane = () if isinstance(spec.data, Planar) else (lanes,)
        shape = (middle.blocks, inner, *spec.first.kernel, *lane, lanes)
        self.first = self._convolution("first", shape, middle, spec.first.program)
        shape = (middle.blocks, *spec.depthwise.kernel, lanes)
        self.depthwise = self._convolution("depthwise", shape, middle, spec.depthwise.program)
        if spec.last is not None:
            shape = (out.blocks, middle.blocks, 1, 1, lanes, lanes)
            self.last = self._convolution("last", shape, out, spec.last)
        self.out = e.param("out", out.shape)
        if spec.sums:
            self.sums = e.param("sums", (out.batch, schedule.strips, out.blocks, lanes))

    def _convolution(
        self, name: str, shape: Sequence[int], out: Packed, program: Program
    ) -> tuple[Any, Any, list[Any]]:
        """Parameters of one convolution: weights, bias, operands."""
        e = self.e
        weights, bias = e.param(f"{name}_w", shape), e.param(f"{name}_b", (out.blocks, out.lanes))
        operands = [
            e.param(f"{name}_{i}", operand_shape(operand.layout, operand.access, out))
            for i, operand in enumerate(program.parameters)
        ]
        return weights, bias, operands

    def emit(self) -> None:
        """Parallel over images × strips × blocks (all blocks in one task before a last one)."""
        e, spec, schedule = self.e, self.spec, self.schedule
        height = -(-spec.out.height // schedule.strips)
        outer = 1 if spec.last is not None else spec.middle.blocks
        with e.parallel(spec.out.batch * schedule.strips * outer) as task:
            n, strip = task // (schedule.strips * outer), task // outer % schedule.strips
            y0 = e.integer(strip * height)
            self.held = spec.middle.blocks // outer
            self.base = e.bind(task % outer) if outer > 1 else 0
            self._allocate()
            uneven = spec.out.height % height
            rows = T.min(height, spec.out.height - y0) if uneven else height
            chunk = min(height, schedule.rows)
            with e.serial(-(-height // chunk)) as i:
                first = e.integer(y0 + i * chunk)
                self._rows(n, y0, first, e.integer(T.min(y0 + rows - first, chunk)))
            if spec.sums:
                with e.serial(self.held) as b:
                    total = e.load(self.total, (b, 0))
                    e.store(self.sums, (n, strip, self.base + b, 0), total)

    def _allocate(self) -> None:
        """The task's memory; columns beside the image are zero for good."""
        e, spec = self.e, self.spec
        kh, left = spec.depthwise.kernel[0], spec.depthwise.pads[1]
        self.ring = e.scratch((self.held, kh, spec.ring_columns, e.lanes))
        right = range(left + spec.middle.width, spec.ring_columns)
        if left or right:
            with e.serial(self.held) as b, e.serial(kh) as slot:
                for column in (*range(left), *right):
                    e.store(self.ring, (b, slot, column, 0), e.splat(0.0))
        if spec.last is not None:
            rows = self.schedule.rows
            self.filtered = e.scratch((self.held, rows, spec.out.width, e.lanes))
        if spec.sums:
            self.total = e.scratch((self.held, e.lanes))
            with e.serial(self.held) as b:
                e.store(self.total, (b, 0), e.splat(0.0))
        if isinstance(spec.data, Planar):
            self.patch = Patch(e, spec.data, spec.first, spec.middle.width)

    def _rows(self, n: Index, y0: Index, first: Index, count: Index) -> None:
        """`count` output rows from `first` on; the first rows of a task fill the ring before."""
        e, spec = self.e, self.spec
        kh, step, top = spec.depthwise.kernel[0], spec.depthwise.stride[0], spec.depthwise.pads[0]
        lead = -(-(kh - step) // step)
        before = e.integer(T.Select(first == y0, lead, 0)) if lead else 0
        with e.serial(self.held) as held, e.serial(before + count) as i:
            y = e.integer(first - before + i)
            with e.serial(step) as j:
                row = e.integer(y * step - top + kh - step + j)
                with e.when(row >= y0 * step - top):
                    self._ring_row(n, row, held, e.integer((row + top) % kh))
            with e.when(y >= y0):
                self._filter(n, held, y, y - first)
        if spec.last is not None:
            with e.serial(count) as i:
                self._finish_row(n, first + i, i)

    def _ring_row(self, n: Index, row: Index, held: Index, slot: Index) -> None:
        """One row of the middle image, or zeros beyond it."""
        e, spec = self.e, self.spec
        with e.branches(T.And(row >= 0, row < spec.middle.height)) as (inside, outside):
            with inside:
                self._produce(n, row, held, slot)
            with outside, e.serial(spec.middle.width) as x:
                e.store(self.ring, (held, slot, spec.depthwise.pads[1] + x, 0), e.splat(0.0))

    def _produce(self, n: Index, row: Index, held: Index, slot: Index) -> None:
        """One row of one block of the middle image, into the ring."""
        e, spec = self.e, self.spec
        left, program, block = spec.depthwise.pads[1], spec.first.program, self.base + held
        if isinstance(spec.data, Planar):
            self.patch.copy(self.data, n, row)
        else:
            plane = spec.data.shape[2] * spec.data.shape[3]
            first = spec.data.index(n, 0, row, 0)
            shape = (spec.data.blocks, plane, e.lanes)
            view = e.view(self.data, first, shape)

        def pixel(x0: Index) -> Scalar:
            return lambda cb, i, lane: view[cb, x0 + i, lane]

        for run in even_runs(spec.middle.width, self.schedule.pixels):
            with e.serial(run.count) as tile:
                x0 = e.bind(tile * run.size + run.start)
                made = self._tile(self.first[1], block, run.size, 1)
                if isinstance(spec.data, Planar):
                    self.patch.reduce(made, self.first[0], block, x0)
                else:
                    self._reduce(made, self.first[0], block, spec.data, pixel(x0))
                for i, (register,) in enumerate(made):
                    value = register.get()
                    if not program.long:
                        value = self._apply(program, self.first[2], block, value)
                    e.store(self.ring, (held, slot, left + x0 + i, 0), value)
        if program.long:
            with e.serial(spec.middle.width) as x:
                place = (held, slot, left + x, 0)
                value = e.bind(e.load(self.ring, place))
                e.store(self.ring, place, self._apply(program, self.first[2], block, value))

    def _apply(self, program: Program, buffers: list[Any], block: Index, value: Value) -> Value:
        """A program whose operands have one value a channel."""
        load = operand_loader(self.e, program, buffers, 0, block, 0, 0)
        return program.apply(self.math, value, load)

    def _tile(self, bias: Any, block: Index, pixels: int, blocks: int) -> list[list[Register]]:
        """Accumulators [pixel][block], set to the bias."""
        e = self.e
        vectors = [e.bind(e.load(bias, (block + c, 0))) for c in range(blocks)]
        made = [[Register(e.lanes) for _ in range(blocks)] for _ in range(pixels)]
        for line in made:
            for register, vector in zip(line, vectors, strict=True):
                register.set(vector)
        return made

    def _reduce(
        self,
        made: list[list[Register]],
        weights: Any,
        block: Index,
        data: Packed,
        scalar: Scalar,
    ) -> None:
        """A 1×1 reduction over the channels of `data`, which `scalar` reads."""
        e = self.e
        for c0, count, lanes in channel_runs(data):
            with e.serial(count) as dc, e.serial(lanes) as lane:
                cb = c0 + dc
                vectors = [
                    e.bind(e.load(weights, (block + c, cb, 0, 0, lane, 0)))
                    for c in range(len(made[0]))
                ]
                for i, line in enumerate(made):
                    multiply(e, line, scalar(cb, i, lane), vectors)

    def _filter(self, n: Index, held: Index, y: Index, kept: Index) -> None:
        """The depthwise convolution of block `held` of the ring: one output row."""
        e, spec = self.e, self.spec
        block, program = self.base + held, spec.depthwise.program
        kh, (sh, sw) = spec.depthwise.kernel[0], spec.depthwise.stride
        slots = [e.integer((y * sh + i) % kh) for i in range(kh)]

        def place(x: Index) -> tuple[Any, tuple[Index, ...]]:
            if spec.last is not None:
                return self.filtered, (held, kept, x, 0)
            return self.out, spec.out.index(n, block, y, x)

        for run in even_runs(spec.out.width, self.schedule.depth_pixels):
            with e.serial(run.count) as tile:
                x0 = e.bind(tile * run.size + run.start)
                (made,) = zip(*self._tile(self.depthwise[1], block, run.size, 1), strict=True)
                for i, slot in enumerate(slots):
                    self._filter_row(made, held, i, slot, x0 * sw)
                for i, register in enumerate(made):
                    value = register.get()
                    if not program.long:
                        value = self._apply(program, self.depthwise[2], block, value)
                        self._add_up(held, value)
                    buffer, index = place(x0 + i)
                    e.store(buffer, index, value)
        if program.long:
            with e.serial(spec.out.width) as x:
                buffer, index = place(x)
                value = e.bind(e.load(buffer, index))
                value = self._apply(program, self.depthwise[2], block, value)
                self._add_up(held, value)
                e.store(buffer, index, value)

    def _filter_row(
        self, made: Sequence[Register], held: Index, i: int, slot: Index, x: Index
    ) -> None:
        """One row of the depthwise kernel; vectors that neighbours share are loaded once."""
        e = self.e
        step = self.spec.depthwise.stride[1]
        cached: dict[int, Value] = {}
        for j in range(self.spec.depthwise.kernel[1]):
            weight = e.bind(e.load(self.depthwise[0], (self.base + held, i, j, 0)))
            for pixel, register in enumerate(made):
                offset = pixel * step + j
                if offset not in cached:
                    cached[offset] = e.bind(e.load(self.ring, (held, slot, x + offset, 0)))
                register.add(cached[offset] * weight)

    def _add_up(self, held: Index, value: Value) -> None:
        if self.spec.sums:
            total = self.e.load(self.total, (held, 0))
            self.e.store(self.total, (held, 0), total + value)

    def _finish_row(self, n: Index, y: Index, kept: Index) -> None:
        """The last convolution of one row."""
        e, spec, blocks = self.e, self.spec, self.schedule.last_blocks

        def pixel(x0: Index) -> Scalar:
            return lambda cb, i, lane: self.filtered[cb, kept, x0 + i, lane]

        with e.serial(spec.out.blocks // blocks) as g:
            for run in even_runs(spec.out.width, self.schedule.last_pixels):
                with e.serial(run.count) as tile:
                    x0 = e.bind(tile * run.size + run.start)
                    made = self._tile(self.last[1], g * blocks, run.size, blocks)
                    self._reduce(made, self.last[0], g * blocks, spec.middle, pixel(x0))
                    for i, line in enumerate(made):
                        for c, register in enumerate(line):
                            self._finish(n, g * blocks + c, y, x0 + i, register.get())

    def _finish(self, n: Index, block: Index, y: Index, x: Index, value: Value) -> None:
        e, program = self.e, self.spec.last
        assert program is not None
        load = operand_loader(e, program, self.last[2], n, block, y, x)
        place = self.spec.out.index(n, block, y, x)
        e.store(self.out, place, program.apply(self.math, value, load))
