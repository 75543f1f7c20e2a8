"""Depthwise convolution on packed channels: one input channel for each output channel.

Weights [C/V][kh][kw][V]. A tile is a run of pixels of one row; the vectors of data that
neighbouring pixels share are loaded once a kernel row.
"""

from __future__ import annotations

import hashlib
from typing import Any

from tenantdl.compile.kernels.conv_spec import ConvSpec, operand_loader, operand_shape
from tenantdl.compile.kernels.emit import Emitter, Index, Register, Value
from tenantdl.compile.kernels.runs import even_runs
from tenantdl.compile.kernels.vmath import VectorMath
from tenantdl.compile.operator import Kernel
from tenantdl.compile.target import CpuTarget

UNROLLED_KERNEL_MAX = 49


def depthwise_pixels(spec: ConvSpec, target: CpuTarget) -> int:
    """Pixels of a tile: accumulators and the row of data they read must fit the registers."""
    kw, step = spec.kernel[1], spec.stride[1]
    budget = target.registers - 4
    pixels = 1
    while pixels < 14 and (pixels + 1) + (pixels * step + kw) // 2 <= budget - kw // 2:
        pixels += 1
    return pixels


def depthwise(spec: ConvSpec, pixels: int, *, sums: bool = False) -> Kernel:
    """The kernel: parameters data, weights, bias [C/V][V], operands of the program, output, and the
    output's channel sums [N][1][C/V][V] if asked for."""
    digest = hashlib.sha256(repr((spec, pixels, sums)).encode()).hexdigest()[:12]
    with Emitter(f"depthwise_{digest}", spec.lanes) as e:
        _Depthwise(e, spec, pixels, sums).emit()
    return e.kernel()


class _Depthwise:
    def __init__(self, e: Emitter, spec: ConvSpec, pixels: int, sums: bool) -> None:
        self.e, self.spec, self.pixels = e, spec, pixels
        self.math = VectorMath(e)
        self.data = e.param("data", spec.data.shape)
        self.weights = e.param("weights", (spec.out.blocks, *spec.kernel, spec.lanes))
        self.bias = e.param("bias", (spec.out.blocks, spec.lanes))
        self.operands = [
            e.param(f"operand{i}", operand_shape(operand.layout, operand.access, spec.out))
            for i, operand in enumerate(spec.program.parameters)
        ]
        self.out = e.param("out", spec.out.shape)
        self.sums: Any = None
        if sums:
            self.sums = e.param("sums", (spec.out.batch, 1, spec.out.blocks, spec.lanes))

    def emit(self) -> None:
        """Parallel over image × channel blocks (× rows where blocks are few)."""
        e, out = self.e, self.spec.out
        planes = out.batch * out.blocks
        rows = 1 if planes < 8 and self.sums is None else out.height
        with e.parallel(planes * (out.height // rows)) as task:
            plane, y0 = (task, 0) if rows > 1 or out.height == 1 else _split(task, out.height)
            n, block = plane // out.blocks, plane % out.blocks
            self.total = e.registers(1)[0]
            with e.serial(rows) as dy:
                for run in even_runs(out.width, self.pixels):
                    with e.serial(run.count) as tile:
                        self._tile(n, block, y0 + dy, tile * run.size + run.start, run.size)
            if self.sums is not None:
                e.store(self.sums, (n, 0, block, 0), self.total.get())

    def _tile(self, n: Index, block: Index, y: Index, x: Index, size: int) -> None:
        e, spec = self.e, self.spec
        bias = e.bind(e.load(self.bias, (block, 0)))
        accumulators = [Register(e.lanes) for _ in range(size)]
        for register in accumulators:
            register.set(bias)
        kh, kw = spec.kernel
        if kh * kw <= UNROLLED_KERNEL_MAX:
            for row in range(kh):
                self._kernel_row(n, block, y, x, row, accumulators)
        else:
            with e.serial(kh) as row:
                self._kernel_row(n, block, y, x, row, accumulators)
        program = spec.program
        for i, register in enumerate(accumulators):
            value = register.get()
            if not program.long:
                load = operand_loader(e, program, self.operands, n, block, y, x + i)
                value = e.bind(program.apply(self.math, value, load))
                self._add_up(value)
            e.store(self.out, spec.out.index(n, block, y, x + i), value)
        if program.long:
            with e.serial(size) as i:
                load = operand_loader(e, program, self.operands, n, block, y, x + i)
                place = spec.out.index(n, block, y, x + i)
                value = program.apply(self.math, e.bind(e.load(self.out, place)), load)
                self._add_up(value)
                e.store(self.out, place, value)

    def _add_up(self, value: Value) -> None:
        if self.sums is not None:
            self.total.add(value)

    def _kernel_row(
        self, n: Index, block: Index, y: Index, x: Index, row: Index, accumulators: list[Register]
    ) -> None:
        e, spec = self.e, self.spec
        (sh, sw), (dh, dw), (top, left) = spec.stride, spec.dilation, spec.pads
        cached: dict[int, Value] = {}

        def data(offset: int) -> Value:
            if offset not in cached:
                at = spec.data.index(n, block, y * sh + row * dh - top, x * sw + offset - left)
                cached[offset] = e.bind(e.load(self.data, at))
            return cached[offset]

        for column in range(spec.kernel[1]):
            weight = e.bind(e.load(self.weights, (block, row, column, 0)))
            for i, register in enumerate(accumulators):
                register.add(data(i * sw + column * dw) * weight)


def _split(task: Index, height: int) -> tuple[Index, Index]:
    return task // height, task % height
