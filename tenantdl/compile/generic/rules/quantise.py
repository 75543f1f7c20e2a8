"""Integer operators of quantised models: products of integers are summed in int32, exactly."""

from __future__ import annotations

from typing import Any

import numpy as np
from tvm import relax, tirx

from tenantdl.compile.frontend.refusal import Refusal
from tenantdl.compile.generic.rules.neural import convolve, product
from tenantdl.compile.generic.rules.use import (
    Rule,
    Use,
    dtype_of,
    elementwise,
    immediate,
    normalised,
)


def _cast(use: Use, value: Any, dtype: str) -> Any:
    return use.emit(relax.op.astype(value, dtype))


def _spread(use: Use, index: int) -> Any:
    """A scale or zero point in a shape that broadcasts with input 0: one, by axis, or by block."""
    value = use.inputs[index]
    shape, own = use.shape(), use.shape(index)
    if len(own) == 0 or own == (1,):
        return use.emit(relax.op.reshape(value, []))
    axis = normalised(use.attrs.get("axis", 1), len(shape))
    block = use.attrs.get("block_size", 0)
    if block:
        if len(own) != len(shape) or own[axis] * block < shape[axis]:
            raise Refusal("its blocks do not cover its input")
        value = use.emit(relax.op.repeat(value, block, axis))
        return use.emit(relax.op.strided_slice(value, [axis], [0], [shape[axis]]))
    return use.emit(relax.op.reshape(value, [-1 if k == axis else 1 for k in range(len(shape))]))


def _quantize(use: Use) -> Any:
    data = use.inputs[0]
    dtype = use.out.dtype
    work = use.dtype() if use.dtype().startswith("float") else "float32"
    if work == "float16":
        work = "float32"
    scaled = relax.op.divide(_cast(use, data, work), _cast(use, _spread(use, 1), work))
    zero = _cast(use, _spread(use, 2), work) if use.has(2) else relax.const(np.asarray(0, work))
    return _saturate(use, use.emit(scaled), zero, dtype)


def _saturate(use: Use, value: Any, zero: Any, dtype: str) -> Any:
    """round(value) + zero as an integer of `dtype`, within its range. Rounds halves to even."""
    low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
    rounded = use.te(elementwise(tirx.nearbyint), value)
    total = use.emit(relax.op.add(rounded, zero))

    def clamp(x: Any) -> Any:
        bounded = tirx.max(tirx.min(x, immediate(high, dtype_of(x))), immediate(low, dtype_of(x)))
        return bounded.astype(dtype)

    return use.te(elementwise(clamp), total)


def _dequantize(use: Use) -> Any:
    dtype = use.out.dtype
    value = use.inputs[0]
    if use.has(2):
        value = use.emit(
            relax.op.subtract(_cast(use, value, "int32"), _cast(use, _spread(use, 2), "int32"))
        )
    scale = _cast(use, _spread(use, 1), "float32" if dtype == "float16" else dtype)
    wide = _cast(use, value, "float32" if dtype == "float16" else dtype)
    return _cast(use, use.emit(relax.op.multiply(wide, scale)), dtype)


def _dynamic_quantize(use: Use) -> list[Any]:
    """uint8 with the scale of this tensor; zero is exact."""
    data = use.inputs[0]
    zero, top = use.const(0.0), use.const(255.0)
    low = use.emit(relax.op.minimum(use.emit(relax.op.min(data)), zero))
    high = use.emit(relax.op.maximum(use.emit(relax.op.max(data)), zero))
    scale = use.emit(relax.op.divide(use.emit(relax.op.subtract(high, low)), top))
    point = use.emit(relax.op.divide(use.emit(relax.op.subtract(zero, low)), scale))
    point = use.te(elementwise(tirx.nearbyint), use.emit(relax.op.clip(point, 0, 255)))
    quantised = _saturate(use, use.emit(relax.op.divide(data, scale)), point, "uint8")
    return [quantised, scale, _cast(use, point, "uint8")]


def _centred(use: Use, index: int, zero: int, axis: int | None) -> Any:
    """An integer operand minus its zero point, in int32. `axis`: that of a vector of points."""
    value = _cast(use, use.inputs[index], "int32")
    if not use.has(zero):
        return value
    point = _cast(use, use.inputs[zero], "int32")
    own = use.shape(zero)
    if own in ((), (1,)):
        point = use.emit(relax.op.reshape(point, []))
    elif len(own) == 1 and axis is not None:
        rank = len(use.shape(index))
        shape = [-1 if k == axis % rank else 1 for k in range(rank)]
        point = use.emit(relax.op.reshape(point, shape))
    return use.emit(relax.op.subtract(value, point))


def _matmul_integer(use: Use) -> Any:
    left = _centred(use, 0, 2, -2)
    right = _centred(use, 1, 3, -1)
    return product(use, left, right, "int32")


def _conv_integer(use: Use) -> Any:
    return convolve(use, _centred(use, 0, 2, None), _centred(use, 1, 3, 0), "int32")


def _requantize(use: Use, sums: Any, scales: tuple[Any, Any, Any], zero: int) -> Any:
    """Sums of int32 in the units of the output: times left * right / result."""
    left, right, result = (_cast(use, scale, "float32") for scale in scales)
    factor = use.emit(relax.op.divide(use.emit(relax.op.multiply(left, right)), result))
    value = use.emit(relax.op.multiply(_cast(use, sums, "float32"), factor))
    point = _cast(use, use.emit(relax.op.reshape(use.inputs[zero], [])), "float32")
    return _saturate(use, value, point, use.out.dtype)


def _scalar(use: Use, index: int) -> Any:
    return use.emit(relax.op.reshape(use.inputs[index], []))


def _qlinear_matmul(use: Use) -> Any:
    for index in (1, 2, 4, 5, 6, 7):
        if use.shape(index) not in ((), (1,)):
            raise Refusal("scales by row or column are not supported")
    sums = product(use, _centred(use, 0, 2, None), _centred(use, 3, 5, None), "int32")
    return _requantize(use, sums, (_scalar(use, 1), _scalar(use, 4), _scalar(use, 6)), 7)


def _qlinear_conv(use: Use) -> Any:
    sums = convolve(use, _centred(use, 0, 2, None), _centred(use, 3, 5, 0), "int32")
    by_channel = [-1, *([1] * (len(use.shape()) - 2))]
    if use.has(8):
        bias = use.emit(relax.op.reshape(use.inputs[8], by_channel))
        sums = use.emit(relax.op.add(sums, bias))
    scale = use.inputs[4]
    if use.shape(4) not in ((), (1,)):
        scale = use.emit(relax.op.reshape(scale, by_channel))
    else:
        scale = _scalar(use, 4)
    return _requantize(use, sums, (_scalar(use, 1), scale, _scalar(use, 6)), 7)


RULES: dict[str, Rule] = {
    "ConvInteger": _conv_integer,
    "DequantizeLinear": _dequantize,
    "DynamicQuantizeLinear": _dynamic_quantize,
    "MatMulInteger": _matmul_integer,
    "QLinearConv": _qlinear_conv,
    "QLinearMatMul": _qlinear_matmul,
    "QuantizeLinear": _quantize,
}
