"""Convolutions, ordinary and transposed, to a few channels: sums over lanes, row-major output.

With channels of the output in the lanes of a vector, a network's last convolution (one channel of
a mask, three of an image) would waste nearly all of them. Here lanes are input channels: a register
a pixel, added up across lanes in the end, which yields a vector of neighbouring pixels. All phases
of a transposed convolution share one pass over the data, and neighbours are interleaved.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from tvm import tirx
from tvm.script.ir_builder import tirx as T

from tenantdl.compile.context import Context, Form, Group
from tenantdl.compile.fusion import bind_program
from tenantdl.compile.graph import Array, Node
from tenantdl.compile.kernels import conv, conv_transpose
from tenantdl.compile.kernels.emit import Emitter, Index, Value
from tenantdl.compile.kernels.epilogue import EMPTY, Program
from tenantdl.compile.kernels.layout import Border, Packed
from tenantdl.compile.kernels.registry import Template
from tenantdl.compile.kernels.tiles import lane_sums
from tenantdl.compile.kernels.vmath import VectorMath
from tenantdl.compile.operator import Kernel

_SUM_STEPS = 48  # operations to add up the lanes of a tile
_ADVANTAGE = 1.5
_INTERLEAVED = (1, 2, 4)  # strides of a transposed convolution across a row


@dataclass(frozen=True, slots=True)
class NarrowPhase:
    """The outputs at `offset` modulo the step: a convolution with its own part of the kernel."""

    offset: tuple[int, int]
    kernel: tuple[int, int]
    pads: tuple[int, int]


@dataclass(frozen=True, slots=True)
class NarrowSpec:
    """`channels` output planes. Output pixel (y · step + offset) of a phase reads the data from
    (y · stride − pads) on. `rows`, `columns`: pixels of a phase."""

    data: Packed
    channels: int
    rows: int
    columns: int
    phases: tuple[NarrowPhase, ...]
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    step: tuple[int, int] = (1, 1)
    program: Program = EMPTY

    @property
    def taps(self) -> int:
        """Kernel positions of all phases."""
        return sum(phase.kernel[0] * phase.kernel[1] for phase in self.phases)

    @property
    def pays(self) -> bool:
        """Whether summing over lanes is clearly less work than channels in lanes."""
        lanes, data = self.data.lanes, self.data
        here = self.channels * (self.taps * data.blocks * lanes + len(self.phases) * _SUM_STEPS)
        there = self.taps * data.channels * lanes
        fits = self.columns >= lanes and self.channels < lanes / 2
        return fits and here * _ADVANTAGE < there


def narrow(spec: NarrowSpec) -> Kernel:
    """The kernel: parameters data, weights [channel × tap × block][V], bias [channels], operands
    (row-major, like the output), output."""
    digest = hashlib.sha256(repr(spec).encode()).hexdigest()[:12]
    with Emitter(f"narrow_{digest}", spec.data.lanes) as e:
        _Narrow(e, spec).emit()
    return e.kernel()


class _Narrow:
    def __init__(self, e: Emitter, spec: NarrowSpec) -> None:
        self.e, self.spec = e, spec
        self.math = VectorMath(e)
        data = spec.data
        shape = (data.batch, spec.channels, spec.rows * spec.step[0], spec.columns * spec.step[1])
        self.data = e.param("data", data.shape)
        self.weights = e.param("weights", (spec.channels * spec.taps * data.blocks, e.lanes))
        self.bias = e.param("bias", (spec.channels,))
        self.operands = [
            e.param(f"operand{i}", shape) for i, _ in enumerate(spec.program.parameters)
        ]
        self.out = e.param("out", shape)

    def emit(self) -> None:
        """Parallel over rows. The last tile of a row overlaps the one before."""
        e, spec = self.e, self.spec
        tiles = -(-spec.columns // e.lanes)
        with e.parallel(spec.data.batch * spec.rows) as task:
            n, y = task // spec.rows, task % spec.rows
            with e.serial(tiles) as tile, e.serial(spec.channels) as channel:
                x = tile * e.lanes
                if spec.columns % e.lanes:
                    x = e.bind(T.min(x, spec.columns - e.lanes))
                self._tile(n, channel, y, x)

    def _tile(self, n: Index, channel: Index, y: Index, x: Index) -> None:
        """All phases of one tile of one channel."""
        e, spec = self.e, self.spec
        first = channel * spec.taps * spec.data.blocks
        down, across = spec.step
        lines: dict[int, list[Value]] = {}
        for phase in spec.phases:
            lines.setdefault(phase.offset[0], []).append(self._sums(phase, n, y, x, first))
            first = first + phase.kernel[0] * phase.kernel[1] * spec.data.blocks
        bias = e.bind(e.splat(self.bias[channel]))
        for row, line in lines.items():
            for i, value in enumerate(interleave(e, line)):
                place = (n, channel, y * down + row, x * across + i * e.lanes)
                self._store(place, value + bias)

    def _sums(self, phase: NarrowPhase, n: Index, y: Index, x: Index, first: Index) -> Value:
        """One phase of a tile as a vector of pixels; its weights begin at `first`."""
        e, spec = self.e, self.spec
        (sh, sw), (dh, dw), (top, left) = spec.stride, spec.dilation, phase.pads
        height, width = phase.kernel
        registers = e.registers(e.lanes)
        loops = e.serial(spec.data.blocks), e.serial(height), e.serial(width)
        with loops[0] as block, loops[1] as kh, loops[2] as kw:
            tap = (block * height + kh) * width + kw
            weight = e.bind(e.load(self.weights, (first + tap, 0)))
            for i, register in enumerate(registers):
                at = (y * sh + kh * dh - top, (x + i) * sw + kw * dw - left)
                register.add(e.load(self.data, spec.data.index(n, block, *at)) * weight)
        return lane_sums(e, [register.get() for register in registers])

    def _store(self, place: tuple[Index, ...], value: Value) -> None:
        e = self.e

        def load(i: int) -> Value:
            return e.load(self.operands[i], place)

        e.store(self.out, place, self.spec.program.apply(self.math, e.bind(value), load))


def interleave(e: Emitter, vectors: Sequence[Value]) -> list[Value]:
    """Elements of the vectors taken in turns: a0 b0 a1 b1 …; their number is a power of two."""
    if len(vectors) == 1:
        return list(vectors)
    even, odd = interleave(e, vectors[::2]), interleave(e, vectors[1::2])
    mixed = []
    for a, b in zip(even, odd, strict=True):
        order = [i // 2 + i % 2 * e.lanes for i in range(2 * e.lanes)]
        mixed += [e.bind(tirx.Shuffle([a, b], order[: e.lanes]))]
        mixed += [e.bind(tirx.Shuffle([a, b], order[e.lanes :]))]
    return mixed


def _conv_spec(context: Context, node: Node) -> NarrowSpec | None:
    if conv.form(context, node) is None:
        return None
    geometry = conv.Geometry(context, node)
    out = context.layout_of(node.outputs[0])
    phase = NarrowPhase((0, 0), geometry.kernel, geometry.pads)
    return NarrowSpec(
        context.layout_of(node.inputs[0]),
        out.channels,
        out.height,
        out.width,
        (phase,),
        geometry.stride,
        geometry.dilation,
    )


def _transposed_spec(context: Context, node: Node) -> NarrowSpec | None:
    if conv_transpose.form(context, node) is None:
        return None
    down, across = (int(s) for s in node.attrs.get("strides", [1, 1]))
    out = context.layout_of(node.outputs[0])
    if out.height % down or out.width % across or across not in _INTERLEAVED:
        return None
    phases = tuple(
        NarrowPhase(
            (rows.offset, columns.offset),
            (max(1, len(rows.taps)), max(1, len(columns.taps))),
            (-rows.first, -columns.first),
        )
        for rows, columns in conv_transpose.phases(context, node)
    )
    data = context.layout_of(node.inputs[0])
    rows, columns = out.height // down, out.width // across
    return NarrowSpec(data, out.channels, rows, columns, phases, step=(down, across))


def _spec(context: Context, node: Node) -> NarrowSpec | None:
    """Sizes of `node` if it is one for this template: packed input, few channels, no groups."""
    if context.forms.get(node.inputs[0]) != "packed" or int(node.attrs.get("group", 1)) != 1:
        return None
    if len(context.type(node.inputs[0]).shape) != 4:
        return None
    spec = (_conv_spec if node.op == "Conv" else _transposed_spec)(context, node)
    return spec if spec is not None and spec.pays else None


def _form(context: Context, node: Node) -> Form | None:
    return "plain" if _spec(context, node) is not None else None


def _border(context: Context, node: Node) -> Border:
    if node.op == "Conv":
        return conv.Geometry(context, node).border
    return conv_transpose.border(context, node)


def _lower(context: Context, group: Group) -> None:
    node = group.anchor
    spec = _spec(context, node)
    assert spec is not None
    program, operands = bind_program(context, group, "plain")
    source, data = context.packed(node.inputs[0])
    weights = context.graph.constants[node.inputs[1]]
    if node.op == "Conv":
        parts = [weights]
    else:
        parts = [
            conv_transpose.part(weights, rows.taps or (-1,), columns.taps or (-1,))
            for rows, columns in conv_transpose.phases(context, node)
        ]
    present = len(node.inputs) > 2 and bool(node.inputs[2])
    bias = context.graph.constants[node.inputs[2]] if present else np.zeros(spec.channels)
    kernel = narrow(replace(spec, data=data, program=program))
    constants = (_pack(parts, data.lanes), bias.astype(np.float32))
    args = (source, *map(context.constant, constants), *operands, context.new_plain(group.output))
    taps = spec.taps * spec.channels * data.channels
    flops = 2 * data.batch * spec.rows * spec.columns * taps
    context.emit(group.name, "conv_narrow", kernel, args, flops=flops)


def _pack(parts: Sequence[Array], lanes: int) -> Array:
    """[O][C][kh][kw] of each phase → [O × phase × C/V × kh × kw][V], missing channels zero."""
    outputs, channels = parts[0].shape[:2]
    blocks = -(-channels // lanes)
    packed = []
    for weights in parts:
        kh, kw = weights.shape[2:]
        full = np.zeros((outputs, blocks * lanes, kh, kw), np.float32)
        full[:, :channels] = weights
        turned = full.reshape(outputs, blocks, lanes, kh, kw).transpose(0, 1, 3, 4, 2)
        packed.append(turned.reshape(outputs, -1, lanes))
    return np.ascontiguousarray(np.concatenate(packed, axis=1).reshape(-1, lanes))


_TEMPLATE = Template(_form, _lower, fuses=True, border=_border)
TEMPLATES = {"Conv": _TEMPLATE, "ConvTranspose": _TEMPLATE}
