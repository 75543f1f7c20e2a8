"""Functions of one element as tensor expressions.

float32 gets polynomials of plain arithmetic, which LLVM vectorises; its library calls take 15 ns an
element. Errors against float64 are below 1e-6, relative (erf: absolute); infinities and nan are
those of the exact functions. Other dtypes use the library.
"""

from __future__ import annotations

import math
from typing import Any

from tvm import tirx

from tenantdl.compile.generic.rules.use import dtype_of, immediate

_LOG2E = 1.4426950408889634
_LN2_HIGH, _LN2_LOW = 0.693359375, -2.12194440e-4
_ROUND = 12582912.0  # 1.5 * 2**23: adding it leaves the rounded integer in the low mantissa bits
_ROUND_BITS = 0x4B400000
_EXP = (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 0.5)
_EXP_LOW, _EXP_HIGH = -87.33, 88.72283  # below: 0 (results would be subnormal); above: inf
_ERF_P = (
    -2.72614225801306e-10,
    2.77068142495902e-08,
    -2.10102402082508e-06,
    -5.69250639462346e-05,
    -7.34990630326855e-04,
    -2.95459980854025e-03,
    -1.60960333262415e-02,
)
_ERF_Q = (
    -1.45660718464996e-05,
    -2.13374055278905e-04,
    -1.68282697438203e-03,
    -7.37332916720468e-03,
    -1.42647390514189e-02,
)
_TANH_P = (
    -2.76076847742355e-16,
    2.00018790482477e-13,
    -8.60467152213735e-11,
    5.12229709037114e-08,
    1.48572235717979e-05,
    6.37261928875436e-04,
    4.89352455891786e-03,
)
_TANH_Q = (1.19825839466702e-06, 1.18534705686654e-04, 2.26843463243900e-03, 4.89352518554385e-03)


def exp(x: Any) -> Any:
    """e**x."""
    if dtype_of(x) != "float32":
        return tirx.exp(x)
    # Integer arithmetic on the bits: TVM would simplify (y + _ROUND) - _ROUND to y.
    exponent = tirx.reinterpret("int32", x * _f(_LOG2E) + _f(_ROUND)) - _i(_ROUND_BITS)
    n = exponent.astype("float32")
    r = x - n * _f(_LN2_HIGH) - n * _f(_LN2_LOW)
    p = _polynomial(r, _EXP) * r * r + r + _f(1.0)
    # 2 * 2**(n-1): n itself may be 128, whose power is not finite.
    half = (exponent + _i(126)) << _i(23)
    value = p * _f(2.0) * tirx.reinterpret("float32", half)
    value = tirx.Select(x > _f(_EXP_HIGH), _f(math.inf), value)
    return tirx.Select(x < _f(_EXP_LOW), _f(0.0), value)


def sigmoid(x: Any) -> Any:
    """1 / (1 + e**-x)."""
    one = immediate(1.0, dtype_of(x))
    return one / (one + exp(immediate(0.0, dtype_of(x)) - x))


def tanh(x: Any) -> Any:
    """Hyperbolic tangent."""
    if dtype_of(x) != "float32":
        return tirx.tanh(x)
    x = _clamp(x, 7.90531110763549805)
    y = x * x
    return x * _polynomial(y, _TANH_P) / _polynomial(y, _TANH_Q)


def erf(x: Any) -> Any:
    """The error function."""
    if dtype_of(x) != "float32":
        return tirx.erf(x)
    x = _clamp(x, 4.0)
    y = x * x
    return x * _polynomial(y, _ERF_P) / _polynomial(y, _ERF_Q)


def softplus(x: Any) -> Any:
    """ln(1 + e**x), from the side where e**x is small."""
    zero, one = immediate(0.0, dtype_of(x)), immediate(1.0, dtype_of(x))
    return tirx.max(x, zero) + tirx.log(one + exp(zero - tirx.abs(x)))


def _f(value: float) -> Any:
    return immediate(value, "float32")


def _i(value: int) -> Any:
    return immediate(value, "int32")


def _clamp(x: Any, bound: float) -> Any:
    """Within ±bound; nan stays."""
    x = tirx.Select(x > _f(bound), _f(bound), x)
    return tirx.Select(x < _f(-bound), _f(-bound), x)


def _polynomial(x: Any, coefficients: tuple[float, ...]) -> Any:
    """Horner's scheme, highest power first."""
    value = _f(coefficients[0])
    for coefficient in coefficients[1:]:
        value = value * x + _f(coefficient)
    return value
