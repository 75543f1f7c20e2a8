"""Elementwise operators, in the dtype of their input."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from tvm import relax, tirx

from tenantdl.compile.frontend.refusal import Refusal
from tenantdl.compile.generic.rules import maths
from tenantdl.compile.generic.rules.use import Rule, Use, dtype_of, elementwise, immediate

Function = Callable[[Any, Mapping[str, Any]], Any]


def _c(value: float, x: Any) -> Any:
    return immediate(value, dtype_of(x))


def _positive(x: Any, otherwise: Any) -> Any:
    """x where it is positive."""
    return tirx.Select(x > _c(0, x), x, otherwise)


def _elu(x: Any, attrs: Mapping[str, Any]) -> Any:
    return _positive(x, _c(attrs.get("alpha", 1.0), x) * (maths.exp(x) - _c(1, x)))


def _selu(x: Any, attrs: Mapping[str, Any]) -> Any:
    alpha = _c(attrs.get("alpha", 1.67326319217681884765625), x)
    gamma = _c(attrs.get("gamma", 1.05070102214813232421875), x)
    return gamma * _positive(x, alpha * (maths.exp(x) - _c(1, x)))


def _leaky_relu(x: Any, attrs: Mapping[str, Any]) -> Any:
    return tirx.Select(x < _c(0, x), _c(attrs.get("alpha", 0.01), x) * x, x)


def _thresholded_relu(x: Any, attrs: Mapping[str, Any]) -> Any:
    return tirx.Select(x > _c(attrs.get("alpha", 1.0), x), x, _c(0, x))


def _hard_sigmoid(x: Any, attrs: Mapping[str, Any]) -> Any:
    value = _c(attrs.get("alpha", 0.2), x) * x + _c(attrs.get("beta", 0.5), x)
    return tirx.max(tirx.min(value, _c(1, x)), _c(0, x))


def _hard_swish(x: Any, attrs: Mapping[str, Any]) -> Any:
    return x * _hard_sigmoid(x, {"alpha": 1 / 6, "beta": 0.5})


def _gelu(x: Any, attrs: Mapping[str, Any]) -> Any:
    half, one = _c(0.5, x), _c(1, x)
    if attrs.get("approximate", "none") == "tanh":
        inner = (x + _c(0.044715, x) * x * x * x) * _c(math.sqrt(2 / math.pi), x)
        return half * x * (one + maths.tanh(inner))
    return half * x * (one + maths.erf(x * _c(math.sqrt(0.5), x)))


def _shrink(x: Any, attrs: Mapping[str, Any]) -> Any:
    bias, lambd = attrs.get("bias", 0.0), attrs.get("lambd", 0.5)
    outer = tirx.Select(x > _c(lambd, x), x - _c(bias, x), _c(0, x))
    return tirx.Select(x < _c(-lambd, x), x + _c(bias, x), outer)


def _is_inf(x: Any, attrs: Mapping[str, Any]) -> Any:
    never = tirx.const(False, "bool")
    above = x == _c(math.inf, x) if attrs.get("detect_positive", 1) else never
    below = x == _c(-math.inf, x) if attrs.get("detect_negative", 1) else never
    return tirx.any(above, below)


def _softsign(x: Any, attrs: Mapping[str, Any]) -> Any:
    return x / (_c(1, x) + tirx.abs(x))


_FUNCTIONS: dict[str, Function] = {
    "Elu": _elu,
    "Erf": lambda x, attrs: maths.erf(x),
    "Exp": lambda x, attrs: maths.exp(x),
    "Gelu": _gelu,
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _hard_swish,
    "IsInf": _is_inf,
    "LeakyRelu": _leaky_relu,
    "Mish": lambda x, attrs: x * maths.tanh(maths.softplus(x)),
    "Round": lambda x, attrs: tirx.nearbyint(x),
    "Selu": _selu,
    "Shrink": _shrink,
    "Sigmoid": lambda x, attrs: maths.sigmoid(x),
    "Softplus": lambda x, attrs: maths.softplus(x),
    "Softsign": _softsign,
    "Tanh": lambda x, attrs: maths.tanh(x),
    "ThresholdedRelu": _thresholded_relu,
}


def _apply(use: Use) -> Any:
    function = _FUNCTIONS[use.node.op]
    return use.te(elementwise(lambda x: function(x, use.attrs)), use.inputs[0])


def _prelu(use: Use) -> Any:
    data, slope = use.inputs[:2]
    scaled = use.emit(relax.op.multiply(data, slope))
    negative = use.emit(relax.op.less(data, use.const(0)))
    return relax.op.where(negative, scaled, data)


def _clip(use: Use) -> Any:
    value = use.inputs[0]
    if use.has(1):
        value = use.emit(relax.op.maximum(value, use.inputs[1]))
    return use.emit(relax.op.minimum(value, use.inputs[2])) if use.has(2) else value


def _bit_shift(use: Use) -> Any:
    """Shifts by the width or more, which C leaves open, give what the bits that are left say."""
    left = use.attrs["direction"] == "LEFT"
    dtype = use.dtype()
    bits = np.dtype(dtype).itemsize * 8

    def shift(x: Any, by: Any) -> Any:
        over = tirx.any(by < immediate(0, dtype), by >= immediate(bits, dtype))
        safe = tirx.Select(over, immediate(0, dtype), by)
        if left or dtype.startswith("u"):
            moved = x << safe if left else x >> safe
            return tirx.Select(over, immediate(0, dtype), moved)
        return x >> tirx.Select(over, immediate(bits - 1, dtype), by)

    shape = use.out.shape
    operands = [use.emit(relax.op.broadcast_to(value, shape)) for value in use.inputs[:2]]
    return use.te(elementwise(shift), *operands)


def _bit_cast(use: Use) -> Any:
    if np.dtype(use.dtype()).itemsize != np.dtype(use.out.dtype).itemsize:
        raise Refusal("between dtypes of different width is not supported")
    if "bool" in (use.dtype(), use.out.dtype):
        return relax.op.astype(use.inputs[0], use.out.dtype)  # a bool is the byte 0 or 1
    return use.te(elementwise(lambda x: tirx.reinterpret(use.out.dtype, x)), use.inputs[0])


RULES: dict[str, Rule] = {
    **dict.fromkeys(_FUNCTIONS, _apply),
    "BitCast": _bit_cast,
    "BitShift": _bit_shift,
    "Clip": _clip,
    "PRelu": _prelu,
}
