"""Convolutions, matrix products, softmax and normalisations."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from tvm import relax, te, tirx, topi

from tenantdl.compile.frontend.refusal import Refusal
from tenantdl.compile.generic.rules import maths
from tenantdl.compile.generic.rules.reduce import reduce_over
from tenantdl.compile.generic.rules.use import (
    Rule,
    Use,
    elementwise,
    immediate,
    normalised,
)


def convolve(use: Use, data: Any, kernel: Any, dtype: str) -> Any:
    """A convolution over any number of image dimensions, summed in `dtype`. Both operands are
    Relax values in it already."""
    attrs = use.attrs
    shape = tuple(int(extent) for extent in kernel.ty.shape.values)
    rank = len(shape) - 2
    strides = attrs.get("strides", [1] * rank)
    dilations = attrs.get("dilations", [1] * rank)
    pads = attrs.get("pads", [0] * 2 * rank)
    groups = attrs.get("group", 1)

    def compute(x: Any, w: Any) -> Any:
        if any(pads):
            zero = immediate(0, dtype)
            x = topi.nn.pad(x, [0, 0, *pads[:rank]], [0, 0, *pads[rank:]], zero, name="padded")
        channel = te.reduce_axis((0, shape[1]), "channel")
        window = [te.reduce_axis((0, shape[2 + k]), f"window{k}") for k in range(rank)]

        def element(n: Any, o: Any, *image: Any) -> Any:
            group = tirx.indexdiv(o, shape[0] // groups) * shape[1] if groups > 1 else 0
            at = [
                place * stride + offset * dilation
                for place, stride, offset, dilation in zip(
                    image, strides, window, dilations, strict=True
                )
            ]
            product = x(n, group + channel, *at) * w(o, channel, *window)
            return te.sum(product, axis=[channel, *window])

        return te.compute(use.out.shape, element, name="convolution")

    return use.te(compute, data, kernel)


def _biased(use: Use, value: Any) -> Any:
    """Adds the bias of a convolution, input 2."""
    if not use.has(2):
        return value
    shape = [use.shape(2)[0], *([1] * (len(use.out.shape) - 2))]
    return relax.op.add(value, use.emit(relax.op.reshape(use.inputs[2], shape)))


def _conv(use: Use) -> Any:
    return _biased(use, convolve(use, use.inputs[0], use.inputs[1], use.dtype()))


def _conv_transpose(use: Use) -> Any:
    attrs = use.attrs
    rank = len(use.shape()) - 2
    strides = list(attrs.get("strides", [1] * rank))
    dilations = attrs.get("dilations", [1] * rank)
    pads = attrs.get("pads", [0] * 2 * rank)
    apart = list(use.shape(1)[2:]) == strides and not any(pads) and set(dilations) == {1}
    if apart and attrs.get("group", 1) == 1 and not any(attrs.get("output_padding", [])):
        return _biased(use, _side_by_side(use, strides))
    return _biased(use, _stretched(use, strides, dilations, pads[:rank]))


def _side_by_side(use: Use, strides: list[int]) -> Any:
    """Windows that do not overlap: one matrix product, whose results are put in place."""
    n, inputs, *image = use.shape()
    _, outputs, *window = use.shape(1)
    rank = len(image)

    def products(x: Any, w: Any) -> Any:
        channel = te.reduce_axis((0, inputs), "channel")

        def element(i: Any, o: Any, *place: Any) -> Any:
            return te.sum(x(i, channel, *place[rank:]) * w(channel, o, *place[:rank]), [channel])

        return te.compute((n, outputs, *window, *image), element)

    def placed(parts: Any) -> Any:
        def element(i: Any, o: Any, *place: Any) -> Any:
            taps = [tirx.indexmod(p, s) for p, s in zip(place, strides, strict=True)]
            cells = [tirx.indexdiv(p, s) for p, s in zip(place, strides, strict=True)]
            return parts(i, o, *taps, *cells)

        return te.compute(use.out.shape, element)

    return use.te(placed, use.te(products, *use.inputs[:2]))


def _stretched(use: Use, strides: list[int], dilations: list[int], begins: list[int]) -> Any:
    """A convolution of the input with zeros between its elements, by the mirrored kernel."""
    groups = use.attrs.get("group", 1)
    inputs, outputs, *window = use.shape(1)
    inputs //= groups
    reach = [(extent - 1) * dilation for extent, dilation in zip(window, dilations, strict=True)]
    image = use.out.shape[2:]

    def compute(x: Any, w: Any) -> Any:
        zero = immediate(0, use.dtype())

        def stretched(i: Any, c: Any, *place: Any) -> Any:
            cells, inside = [], []
            for k, p in enumerate(place):
                at = p - (reach[k] - begins[k])
                cell = tirx.floordiv(at, strides[k])
                extent = int(x.shape[2 + k])
                inside += [tirx.floormod(at, strides[k]) == 0, cell >= 0, cell < extent]
                cells.append(tirx.max(tirx.min(cell, extent - 1), 0))
            return tirx.if_then_else(tirx.all(*inside), x(i, c, *cells), zero)

        sizes = [extent + r for extent, r in zip(image, reach, strict=True)]
        wide = te.compute((*x.shape[:2], *sizes), stretched, name="stretched")
        channel = te.reduce_axis((0, inputs), "channel")
        taps = [te.reduce_axis((0, e), f"tap{k}") for k, e in enumerate(window)]

        def element(i: Any, o: Any, *place: Any) -> Any:
            first = tirx.indexdiv(o, outputs) * inputs if groups > 1 else 0
            own = tirx.indexmod(o, outputs) if groups > 1 else o
            at = [p + r - t * d for p, r, t, d in zip(place, reach, taps, dilations, strict=True)]
            value = wide(i, first + channel, *at) * w(first + channel, own, *taps)
            return te.sum(value, axis=[channel, *taps])

        return te.compute(use.out.shape, element, name="convolution")

    return use.te(compute, *use.inputs[:2])


def product(use: Use, left: Any, right: Any, dtype: str) -> Any:
    """NumPy's matmul, summed in `dtype`."""
    return use.emit(relax.op.matmul(left, right, out_dtype=dtype))


def _matmul(use: Use) -> Any:
    return relax.op.matmul(use.inputs[0], use.inputs[1])


def _gemm(use: Use) -> Any:
    attrs = use.attrs
    left, right = use.inputs[:2]
    if attrs.get("transA"):
        left = use.emit(relax.op.permute_dims(left))
    if attrs.get("transB"):
        array = use.array(1)
        if array is None:
            right = use.emit(relax.op.permute_dims(right))
        else:  # transposed now, not at every call
            right = relax.const(np.array(array.T, use.dtype(), order="C"), use.dtype())
    value = use.emit(relax.op.matmul(left, right))
    if attrs.get("alpha", 1.0) != 1.0:
        value = use.emit(relax.op.multiply(value, use.const(attrs["alpha"])))
    if use.has(2):
        bias = use.inputs[2]
        if attrs.get("beta", 1.0) != 1.0:
            bias = use.emit(relax.op.multiply(bias, use.const(attrs["beta"])))
        value = relax.op.add(value, bias)
    return value


def _softmax(use: Use) -> Any:
    axis = normalised(use.attrs.get("axis", -1), len(use.shape()))
    data = use.inputs[0]
    top = reduce_over(use, data, (axis,), "max", True)
    shifted = use.emit(relax.op.subtract(data, top))
    terms = use.te(elementwise(maths.exp), shifted)
    total = reduce_over(use, terms, (axis,), "sum", True)
    if use.node.op == "LogSoftmax":
        return relax.op.subtract(shifted, use.emit(relax.op.log(total)))
    return relax.op.divide(terms, total)


def _normalise(use: Use, data: Any, axes: tuple[int, ...], epsilon: float) -> Any:
    """(data - mean) / sqrt(variance + epsilon) over `axes`, in two passes."""
    shape = [int(extent) for extent in data.ty.shape.values]
    share = relax.const(np.asarray(1 / math.prod(shape[a] for a in axes), use.dtype()))
    mean = use.emit(relax.op.multiply(reduce_over(use, data, axes, "sum", True), share))
    centred = use.emit(relax.op.subtract(data, mean))
    squares = use.emit(relax.op.multiply(centred, centred))
    variance = use.emit(relax.op.multiply(reduce_over(use, squares, axes, "sum", True), share))
    spread = use.emit(relax.op.sqrt(use.emit(relax.op.add(variance, use.const(epsilon)))))
    return use.emit(relax.op.divide(centred, spread))


def _scaled(use: Use, value: Any, shape: list[int] | None) -> Any:
    """value * input 1 + input 2, these reshaped."""
    for index, combine in ((1, relax.op.multiply), (2, relax.op.add)):
        if use.has(index):
            operand = use.inputs[index]
            if shape is not None:
                operand = use.emit(relax.op.reshape(operand, shape))
            value = use.emit(combine(value, operand))
    return value


def _layer_normalization(use: Use) -> Any:
    rank = len(use.shape())
    first = normalised(use.attrs.get("axis", -1), rank)
    axes = tuple(range(first, rank))
    value = _normalise(use, use.inputs[0], axes, use.attrs.get("epsilon", 1e-5))
    return _scaled(use, value, None)


def _instance_normalization(use: Use) -> Any:
    shape = use.shape()
    value = _normalise(
        use, use.inputs[0], tuple(range(2, len(shape))), use.attrs.get("epsilon", 1e-5)
    )
    return _scaled(use, value, [shape[1], *([1] * (len(shape) - 2))])


def _group_normalization(use: Use) -> Any:
    n, channels, *image = use.shape()
    groups = use.attrs["num_groups"]
    if channels % groups:
        raise Refusal(f"{groups} groups do not fit {channels} channels")
    data = use.emit(relax.op.reshape(use.inputs[0], [n, groups, -1]))
    value = _normalise(use, data, (2,), use.attrs.get("epsilon", 1e-5))
    value = use.emit(relax.op.reshape(value, use.shape()))
    return _scaled(use, value, [channels, *([1] * len(image))])


def _batch_normalization(use: Use) -> Any:
    """With the statistics of training, folded to one multiplication and one addition."""
    shape = [use.shape()[1], *([1] * (len(use.shape()) - 2))] if len(use.shape()) > 1 else [1]
    scale, bias, mean, variance = use.inputs[1:5]
    epsilon = use.const(use.attrs.get("epsilon", 1e-5), 4)
    spread = use.emit(relax.op.sqrt(use.emit(relax.op.add(variance, epsilon))))
    factor = use.emit(relax.op.divide(scale, spread))
    offset = use.emit(relax.op.subtract(bias, use.emit(relax.op.multiply(mean, factor))))
    factor, offset = (use.emit(relax.op.reshape(v, shape)) for v in (factor, offset))
    return relax.op.add(use.emit(relax.op.multiply(use.inputs[0], factor)), offset)


def _mean_variance_normalization(use: Use) -> Any:
    axes = tuple(normalised(axis, len(use.shape())) for axis in use.attrs.get("axes", [0, 2, 3]))
    return _normalise(use, use.inputs[0], axes, 1e-9)


def _lp_normalization(use: Use) -> Any:
    axis = normalised(use.attrs.get("axis", -1), len(use.shape()))
    data = use.inputs[0]
    if use.attrs.get("p", 2) == 1:
        norm = reduce_over(use, use.emit(relax.op.abs(data)), (axis,), "sum", True)
    else:
        squares = use.emit(relax.op.multiply(data, data))
        norm = use.emit(relax.op.sqrt(reduce_over(use, squares, (axis,), "sum", True)))
    zero = use.emit(relax.op.equal(norm, use.const(0)))
    safe = use.emit(relax.op.where(zero, use.const(1), norm))
    return relax.op.divide(data, safe)


def _global_pool(use: Use) -> Any:
    axes = tuple(range(2, len(use.shape())))
    if use.node.op == "GlobalMaxPool":
        return reduce_over(use, use.inputs[0], axes, "max", True)
    total = reduce_over(use, use.inputs[0], axes, "sum", True)
    return relax.op.multiply(total, use.const(1 / math.prod(use.shape()[2:])))


RULES: dict[str, Rule] = {
    **dict.fromkeys(("GlobalAveragePool", "GlobalMaxPool"), _global_pool),
    **dict.fromkeys(("Softmax", "LogSoftmax"), _softmax),
    "BatchNormalization": _batch_normalization,
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Gemm": _gemm,
    "GroupNormalization": _group_normalization,
    "InstanceNormalization": _instance_normalization,
    "LayerNormalization": _layer_normalization,
    "LpNormalization": _lp_normalization,
    "MatMul": _matmul,
    "MeanVarianceNormalization": _mean_variance_normalization,
}
