"""Transposed convolution as ordinary ones: one for each phase of the stride.

Output pixel y of phase a = y mod s reads input (y + pad - k·d)/s for those kernel rows k where
that is whole. These are consecutive input rows, so each phase is a convolution of stride 1 with a
part of the kernel, which writes every s-th pixel.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np

from tenantdl.compile.context import Context, Form, Group
from tenantdl.compile.fusion import bind_program, pad_channels
from tenantdl.compile.graph import Array, Node
from tenantdl.compile.kernels.conv_choice import direct_schedule
from tenantdl.compile.kernels.conv_chunked import conv2d
from tenantdl.compile.kernels.conv_packing import pack_weights
from tenantdl.compile.kernels.conv_spec import ConvSpec, Phase
from tenantdl.compile.kernels.layout import NO_BORDER, Border
from tenantdl.compile.kernels.registry import Template


@dataclass(frozen=True, slots=True)
class _Axis:
    """One phase of one axis: output offset, count, first input offset, kernel rows in its order."""

    offset: int
    count: int
    first: int
    taps: tuple[int, ...]


def axis_phases(length: int, kernel: int, stride: int, dilation: int, pad: int) -> list[_Axis]:
    """Phases of an axis with `length` outputs. A phase that no kernel row reaches has no taps."""
    phases = []
    for a in range(min(stride, length)):
        count = -(-(length - a) // stride)
        reach = {
            (a + pad - k * dilation) // stride: k
            for k in range(kernel)
            if (a + pad - k * dilation) % stride == 0
        }
        offsets = sorted(reach)
        first = offsets[0] if offsets else 0
        last = offsets[-1] if offsets else -1
        # A gap (dilation and stride share no factor) is a tap of weight zero: −1.
        taps = tuple(reach.get(o, -1) for o in range(first, last + 1))
        phases.append(_Axis(a, count, first, taps))
    return phases


def phases(context: Context, node: Node) -> list[tuple[_Axis, _Axis]]:
    """Phases of both axes, row by row."""
    w, out = context.type(node.inputs[1]).shape, context.type(node.outputs[0]).shape
    attrs = node.attrs
    strides = attrs.get("strides", [1, 1])
    dilations = attrs.get("dilations", [1, 1])
    pads = _pads(context, node)
    rows, columns = (
        axis_phases(out[2 + i], w[2 + i], strides[i], dilations[i], pads[i]) for i in range(2)
    )
    return list(product(rows, columns))


def _pads(context: Context, node: Node) -> list[int]:
    """Rows and columns cut off at the top and left of the full result."""
    attrs = node.attrs
    mode = attrs.get("auto_pad", "NOTSET")
    if mode in ("NOTSET", "") and "output_shape" not in attrs:
        return list(attrs.get("pads", [0] * 4)[:2])
    if mode == "VALID":
        return [0, 0]
    x, w = context.type(node.inputs[0]).shape, context.type(node.inputs[1]).shape
    out = context.type(node.outputs[0]).shape
    begin = []
    for i in range(2):
        stride, dilation = attrs.get("strides", [1, 1])[i], attrs.get("dilations", [1, 1])[i]
        extra = attrs.get("output_padding", [0, 0])[i]
        total = stride * (x[2 + i] - 1) + extra + (w[2 + i] - 1) * dilation + 1 - out[2 + i]
        total = max(total, 0)
        begin.append(total - total // 2 if mode == "SAME_LOWER" else total // 2)
    return begin


def form(context: Context, node: Node) -> Form | None:
    """Packed, if this family takes the node."""
    x, w = context.type(node.inputs[0]), context.array(node.inputs[1])
    if x.dtype != "float32" or w is None or len(x.shape) != 4 or not x.size or not w.size:
        return None
    if int(node.attrs.get("group", 1)) != 1 or not context.type(node.outputs[0]).size:
        return None
    if len(node.inputs) > 2 and node.inputs[2] and context.array(node.inputs[2]) is None:
        return None
    return "packed"


def border(context: Context, node: Node) -> Border:
    """What the phases read around the input."""
    height, width = context.type(node.inputs[0]).shape[2:]
    border = NO_BORDER
    for rows, columns in phases(context, node):
        border = border.union(
            Border(
                max(0, -rows.first),
                max(0, -columns.first),
                max(0, rows.first + rows.count - 1 + max(len(rows.taps), 1) - height),
                max(0, columns.first + columns.count - 1 + max(len(columns.taps), 1) - width),
            )
        )
    return border


def _lower(context: Context, group: Group) -> None:
    node = group.anchor
    weights = context.graph.constants[node.inputs[1]]
    program, operands = bind_program(context, group, "packed")
    source, data = context.packed(node.inputs[0])
    target, out = context.new_packed(group.output)
    present = len(node.inputs) > 2 and bool(node.inputs[2])
    bias = (
        context.graph.constants[node.inputs[2]]
        if present
        else np.zeros(weights.shape[1], np.float32)
    )
    bias_name = context.constant(pad_channels(bias, out.lanes))
    for rows, columns in phases(context, node):
        taps = part(weights, rows.taps or (-1,), columns.taps or (-1,))
        phase = Phase(
            (node.attrs.get("strides", [1, 1])[0], node.attrs.get("strides", [1, 1])[1]),
            (rows.offset, columns.offset),
            rows.count,
            columns.count,
        )
        kernel = (taps.shape[2], taps.shape[3])
        pads = (-rows.first, -columns.first)
        spec = ConvSpec(data, out, kernel, pads=pads, program=program, phase=phase)
        packed = context.constant(pack_weights(taps, out.lanes))
        flops = 2 * out.batch * rows.count * columns.count * taps.size
        choice = direct_schedule(context, spec)
        emitted = conv2d(spec, choice.schedule)
        args = (source, packed, bias_name, *operands, target)
        context.emit(group.name, "conv2d_transpose", emitted, args, flops=flops, choices=(choice,))


def part(weights: Array, rows: tuple[int, ...], columns: tuple[int, ...]) -> Array:
    """[C][O][kh][kw] → [O][C][rows][columns] with the taps of a phase (−1: zero)."""
    part = np.zeros((weights.shape[1], weights.shape[0], len(rows), len(columns)), np.float32)
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            if row >= 0 and column >= 0:
                part[:, :, i, j] = weights[:, :, row, column].T
    return part


TEMPLATES = {"ConvTranspose": Template(form, _lower, fuses=True, border=border)}
