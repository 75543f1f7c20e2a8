"""Convolution: which algorithm, weights packed for it, schedule from the target's caches.

Algorithms, one file each: `conv_direct` (dense, grouped by whole blocks, stems), `winograd`,
`depthwise`.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from tenantdl.compile.context import Context, Form, Group
from tenantdl.compile.fusion import Planned, bind_program, pad_channels
from tenantdl.compile.graph import Array, Node
from tenantdl.compile.kernels.conv_choice import (
    algorithm,
    depthwise_tile,
    direct_schedule,
    packing,
)
from tenantdl.compile.kernels.conv_chunked import conv2d
from tenantdl.compile.kernels.conv_packing import (
    densify,
    pack_depthwise,
    pack_planar,
    pack_weights,
)
from tenantdl.compile.kernels.conv_spec import ConvSpec
from tenantdl.compile.kernels.depthwise import depthwise
from tenantdl.compile.kernels.layout import NO_BORDER, Border, Packed, Planar
from tenantdl.compile.kernels.registry import Template
from tenantdl.compile.kernels.subsample import BLOCKS_MIN, subsampled
from tenantdl.compile.kernels.winograd import pack_winograd, winograd
from tenantdl.compile.kernels.winograd_schedule import reach
from tenantdl.compile.schedules import Choice

PLANAR_CHANNELS_MAX = 4  # stems read row-major images of this many channels as they are
DENSIFY_GROUPS_MAX = 16


class Geometry:
    """A Conv node's numbers, two-dimensional (a 1-D convolution has height 1)."""

    def __init__(self, context: Context, node: Node) -> None:
        x, w = (context.type(name).shape for name in node.inputs[:2])
        rank = len(w) - 2
        attrs = node.attrs
        lead = [1] * (2 - rank)
        zero = [0] * (2 - rank)
        self.kernel = _pair([*lead, *w[2:]])
        self.stride = _pair([*lead, *attrs.get("strides", [1] * rank)])
        self.dilation = _pair([*lead, *attrs.get("dilations", [1] * rank)])
        self.groups = int(attrs.get("group", 1))
        self.channels, self.outputs = x[1], w[0]
        image = tuple([*lead, *x[2:]])
        out = tuple([*lead, *context.type(node.outputs[0]).shape[2:]])
        begin = self._pads(node, rank, image, out)
        self.pads = _pair([*zero, *begin])
        after = [
            max(0, (o - 1) * s + (k - 1) * d - p - (i - 1))
            for o, s, k, d, p, i in zip(
                out, self.stride, self.kernel, self.dilation, self.pads, image, strict=True
            )
        ]
        self.border = Border(self.pads[0], self.pads[1], after[0], after[1])

    def _pads(
        self, node: Node, rank: int, image: tuple[int, ...], out: tuple[int, ...]
    ) -> list[int]:
        mode = node.attrs.get("auto_pad", "NOTSET")
        if mode in ("NOTSET", ""):
            return list(node.attrs.get("pads", [0] * 2 * rank)[:rank])
        if mode == "VALID":
            return [0] * rank
        total = [
            max(0, (o - 1) * s + (k - 1) * d + 1 - i)
            for o, s, k, d, i in zip(
                out, self.stride, self.kernel, self.dilation, image, strict=True
            )
        ][2 - rank :]
        return [t // 2 if mode == "SAME_UPPER" else t - t // 2 for t in total]

    @property
    def depthwise(self) -> bool:
        """One input and one output channel a group."""
        return self.groups == self.channels == self.outputs and self.groups > 1

    def blocked_groups(self, lanes: int) -> bool:
        """Every group is a whole number of channel blocks."""
        return (
            self.channels // self.groups % lanes == 0 and self.outputs // self.groups % lanes == 0
        )


def _pair(values: list[int]) -> tuple[int, int]:
    first, second = values
    return int(first), int(second)


def form(context: Context, node: Node) -> Form | None:
    """Packed, if this family takes the node."""
    x, w = context.type(node.inputs[0]), context.array(node.inputs[1])
    if x.dtype != "float32" or w is None or len(x.shape) not in (3, 4) or w.size == 0:
        return None
    if 0 in context.type(node.outputs[0]).shape or 0 in x.shape:
        return None
    if len(node.inputs) > 2 and node.inputs[2] and context.array(node.inputs[2]) is None:
        return None
    geometry = Geometry(context, node)
    groups_fit = (
        geometry.groups == 1
        or geometry.depthwise
        or geometry.blocked_groups(context.target.lanes)
        or geometry.groups <= DENSIFY_GROUPS_MAX
    )
    return "packed" if groups_fit else None


def _border(context: Context, node: Node) -> Border:
    geometry = Geometry(context, node)
    spec, choice = algorithm(context, node, geometry)
    border = geometry.border
    return border if choice.schedule is None else border.union(reach(spec, choice.schedule))


def _lower(context: Context, group: Group) -> None:
    node = group.anchor
    geometry = Geometry(context, node)
    lanes = context.target.lanes
    original = context.graph.constants[node.inputs[1]]
    weights = original.reshape(*original.shape[:2], *geometry.kernel)
    groups = geometry.groups
    if groups > 1 and not geometry.depthwise and not geometry.blocked_groups(lanes):
        weights, groups = densify(weights, groups, geometry.channels), 1
    program, operands = bind_program(context, group, "packed")
    source, data = _data(context, node.inputs[0], geometry)
    stride = geometry.stride
    if _thins(geometry, lanes) and isinstance(data, Packed):
        source, data = subsampled(context, node.inputs[0], source, data, stride)
        stride = (1, 1)
    out_name, out = context.new_packed(group.output)
    spec = ConvSpec(
        data,
        out,
        geometry.kernel,
        stride,
        geometry.dilation,
        geometry.pads,
        groups,
        program,
    )
    choices: tuple[Choice[Any], ...] = ()
    key: tuple[object, ...]
    results = [out_name]
    if geometry.depthwise:
        kind, key = "depthwise_conv2d", ("depthwise", node.inputs[1])
        pack = partial(pack_depthwise, weights, lanes)
        sums = group.output in context.sums
        kernel = depthwise(spec, depthwise_tile(context, spec), sums=sums)
        results += [context.new_sums(group.output)] if sums else []
    elif (winograd_choice := algorithm(context, node, geometry)[1]).schedule is not None:
        kind, key = "conv2d_winograd", packing(node, winograd_choice.schedule)
        pack = partial(pack_winograd, weights, lanes, winograd_choice.schedule)
        kernel, choices = winograd(spec, winograd_choice.schedule), (winograd_choice,)
    else:
        planar = isinstance(data, Planar)
        kind = "conv2d"
        key = ("planar" if planar else "direct", node.inputs[1], geometry.groups)
        pack = partial(pack_planar if planar else pack_weights, weights, lanes)
        direct = direct_schedule(context, spec)
        kernel, choices = conv2d(spec, direct.schedule), (winograd_choice, direct)
    bias = context.constant(bias_vector(context, node, geometry.outputs))
    context.emit(
        group.name,
        kind,
        kernel,
        (source, context.weights(original, key, pack), bias, *operands, *results),
        n_outputs=len(results),
        flops=flops(context, node),
        choices=choices,
    )


def _thins(geometry: Geometry, lanes: int) -> bool:
    """Whether a convolution leaves out pixels that are better left out once for all channels."""
    gaps = geometry.kernel == (1, 1) != geometry.stride and geometry.border == NO_BORDER
    return gaps and geometry.groups == 1 and geometry.outputs >= BLOCKS_MIN * lanes


def is_convolution(context: Context, entry: Planned) -> bool:
    """A two-dimensional convolution that this module's template takes."""
    image = len(context.type(entry.group.output).shape) == 4
    return image and entry.template is TEMPLATES["Conv"]


def is_pointwise(context: Context, entry: Planned) -> bool:
    """A dense 1×1 convolution without strides or pads."""
    if not is_convolution(context, entry):
        return False
    geometry = Geometry(context, entry.group.anchor)
    small = geometry.kernel == geometry.stride == (1, 1) and geometry.border == NO_BORDER
    return small and geometry.groups == 1


def constants(context: Context, node: Node, *, planar: bool = False) -> tuple[str, str]:
    """Buffers of a convolution's packed weights and bias; `planar`: of a stem."""
    lanes, geometry = context.target.lanes, Geometry(context, node)
    weights = context.graph.constants[node.inputs[1]]
    pack = pack_planar if planar else pack_depthwise if geometry.depthwise else pack_weights
    bias = bias_vector(context, node, geometry.outputs)
    return context.constant(pack(weights, lanes)), context.constant(bias)


def flops(context: Context, node: Node) -> int:
    """Floating-point operations of a Conv node."""
    w = context.type(node.inputs[1])
    return 2 * context.type(node.outputs[0]).size * (w.size // w.shape[0])


def reads_planar(context: Context, value: str, geometry: Geometry) -> bool:
    """Whether the convolution reads its input as a row-major image: a stem."""
    plain = context.forms.get(value, "plain") == "plain"
    return plain and geometry.channels <= PLANAR_CHANNELS_MAX and geometry.groups == 1


def _data(context: Context, value: str, geometry: Geometry) -> tuple[str, Packed | Planar]:
    """The convolution's input: packed, or planar for a stem on a row-major image."""
    if not reads_planar(context, value, geometry):
        return context.packed(value)
    shape = context.type(value).shape
    batch, channels, *image = shape
    height, width = (1, image[0]) if len(image) == 1 else image
    layout = Planar(batch, channels, height, width, geometry.border)
    if not geometry.border:
        return context.plain(value), layout
    return context.planar(value, layout), layout


def bias_vector(context: Context, node: Node, outputs: int) -> Array:
    """The bias of a Conv node as [O/V][V], zeros if there is none."""
    present = len(node.inputs) > 2 and bool(node.inputs[2])
    vector = context.graph.constants[node.inputs[2]] if present else np.zeros(outputs, np.float32)
    return pad_channels(vector, context.target.lanes)


TEMPLATES = {"Conv": Template(form, _lower, fuses=True, border=_border)}
