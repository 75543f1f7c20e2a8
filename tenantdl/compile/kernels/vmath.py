"""Elementwise functions on vectors of float32, as expressions that LLVM turns into SIMD code.

TVM's own exp, tanh and erf become scalar library calls (15 ns an element). These are polynomials
(minimax for exp, Cephes, the rational erf of Eigen), evaluated with fused multiply-adds. Maximum
relative errors against float64, measured by tests/compile/test_vmath.py: exp 2e-7, tanh 4e-7,
sigmoid 4e-7, erf 4e-7 absolute.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from tvm.script.ir_builder import tirx as T

from tenantdl.compile.kernels.emit import Emitter, Register, Value

_LOG2E = 1.4426950408889634
_LN2_HIGH, _LN2_LOW = 0.693359375, -2.12194440e-4
_ROUND = 12582912.0  # 1.5 * 2**23: adding it leaves the rounded integer in the low mantissa bits
_LN2 = 0.6931471805599453
# e**r = 1 + r + r²·q(r) for |r| <= ln(2)/2, minimax: relative error 1.1e-7.
_EXP = (8.312501944601536e-3, 4.1890330612659454e-2, 1.6667115688323975e-1, 4.99992311000824e-1)
_AVX512_LANES = 16  # vectors this wide exist on AVX-512 only
_TO_NEAREST = 8  # rounding mode of vrndscaleps: to nearest, no exception
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


class VectorMath:
    """Functions for vectors of `lanes` float32 inside the kernel that `emitter` builds."""

    def __init__(self, emitter: Emitter, lanes: int | None = None) -> None:
        self._e = emitter
        self.lanes = emitter.lanes if lanes is None else lanes

    def const(self, value: float) -> Value:
        """`value` in every lane."""
        return self._e.splat(float(value), self.lanes)

    def bind(self, value: Value) -> Value:
        """Compute once."""
        return self._e.bind(value)

    def polynomial(self, x: Value, coefficients: tuple[float, ...]) -> Value:
        """Horner's scheme, highest power first."""
        value = self.const(coefficients[0])
        for coefficient in coefficients[1:]:
            value = self.bind(value * x + self.const(coefficient))
        return value

    def clamp(self, x: Value, low: float, high: float) -> Value:
        """min(max(x, low), high)."""
        return self.bind(T.min(T.max(x, self.const(low)), self.const(high)))

    def exp(self, x: Value) -> Value:
        """e**x; 0 below -87.3, largest finite values above 88."""
        x = self.clamp(x, -87.33, 88.37)
        shifted = self._opaque(x * self.const(_LOG2E) + self.const(_ROUND))
        n = self.bind(shifted - self.const(_ROUND))
        r = self.bind(x - n * self.const(_LN2_HIGH))
        r = self.bind(r - n * self.const(_LN2_LOW))
        return self.bind(self._exp_near_zero(r) * self._power_of_two(shifted))

    def _exp_near_zero(self, r: Value) -> Value:
        q = self.polynomial(r, _EXP)
        q = self.bind(q * r + self.const(1.0))
        return self.bind(q * r + self.const(1.0))

    def _exp_of_minus(self, x: Value) -> Value:
        """e**-x for the logistic function: infinite or 0 past the range of float32."""
        if self.lanes != _AVX512_LANES:
            return self.exp(self.const(0.0) - x)
        t = self.bind(x * self.const(-_LOG2E))
        n = self._avx512("rndscale", t, T.int32(_TO_NEAREST))
        r = self.bind(self.const(0.0) - x - n * self.const(_LN2))
        return self._avx512("scalef", self._exp_near_zero(r), n)

    def _avx512(self, name: str, value: Value, *more: Value) -> Value:
        """An instruction on all sixteen lanes, in the current rounding mode."""
        every, current = T.int16(-1), T.int32(4)
        symbol = f"llvm.x86.avx512.mask.{name}.ps.512"
        args = (value, *more, value, every, current)
        return self.bind(T.call_llvm_pure_intrin("float32x16", symbol, *args))

    def _opaque(self, value: Value) -> Value:
        """`value` through a stack slot: TVM's simplifier would cancel (y + c) - c, which rounds."""
        slot = Register(self.lanes)
        slot.set(value)
        return self.bind(slot.get())

    def _power_of_two(self, shifted: Value) -> Value:
        """2**n, n being the integer in the low mantissa bits of `shifted`."""
        kind = "int32" if self.lanes == 1 else f"int32x{self.lanes}"
        real = "float32" if self.lanes == 1 else f"float32x{self.lanes}"
        bits = T.reinterpret(kind, shifted)
        exponent = T.shift_left(bits, self._int(23)) + self._int(127 << 23)
        return T.reinterpret(real, exponent)

    def _int(self, value: int) -> Value:
        scalar = T.int32(value)
        return scalar if self.lanes == 1 else T.broadcast(scalar, self.lanes)

    def sigmoid(self, x: Value) -> Value:
        """1 / (1 + e**-x)."""
        return self.bind(self.const(1.0) / (self.const(1.0) + self._exp_of_minus(x)))

    def tanh(self, x: Value) -> Value:
        """Rational approximation on [-7.9, 7.9], constant beyond."""
        x = self.clamp(x, -7.90531110763549805, 7.90531110763549805)
        y = self.bind(x * x)
        return self.bind(x * self.polynomial(y, _TANH_P) / self.polynomial(y, _TANH_Q))

    def erf(self, x: Value) -> Value:
        """Rational approximation on [-4, 4], constant beyond."""
        x = self.clamp(x, -4.0, 4.0)
        y = self.bind(x * x)
        return self.bind(x * self.polynomial(y, _ERF_P) / self.polynomial(y, _ERF_Q))

    def gelu(self, x: Value) -> Value:
        """x · Φ(x) with erf."""
        inner = self.erf(x * self.const(math.sqrt(0.5)))
        return self.bind(x * self.const(0.5) * (inner + self.const(1.0)))

    def gelu_tanh(self, x: Value) -> Value:
        """The tanh approximation of GELU."""
        cube = self.bind(x * x * x)
        inner = self.tanh((x + cube * self.const(0.044715)) * self.const(math.sqrt(2 / math.pi)))
        return self.bind(x * self.const(0.5) * (inner + self.const(1.0)))

    def silu(self, x: Value) -> Value:
        """x · sigmoid(x)."""
        return self.bind(x / (self.const(1.0) + self._exp_of_minus(x)))

    def hard_sigmoid(self, x: Value, alpha: float, beta: float) -> Value:
        """max(0, min(1, alpha·x + beta))."""
        return self.clamp(x * self.const(alpha) + self.const(beta), 0.0, 1.0)

    def select_positive(self, x: Value, other: Value) -> Value:
        """x where x > 0, else `other`."""
        return self.bind(T.Select(x > self.const(0.0), x, other))


Unary = Callable[[VectorMath, Value, dict[str, Any]], Value]
Binary = Callable[[VectorMath, Value, Value], Value]

# ONNX operator (and our fused ones: Silu) → function of one vector and the node's attributes.
UNARY: dict[str, Unary] = {
    "Relu": lambda m, x, a: T.max(x, m.const(0.0)),
    "LeakyRelu": lambda m, x, a: m.select_positive(x, x * m.const(a.get("alpha", 0.01))),
    "Clip": lambda m, x, a: m.clamp(x, a["min"], a["max"]),
    "Sigmoid": lambda m, x, a: m.sigmoid(x),
    "Silu": lambda m, x, a: m.silu(x),
    "Tanh": lambda m, x, a: m.tanh(x),
    "Exp": lambda m, x, a: m.exp(x),
    "Erf": lambda m, x, a: m.erf(x),
    "Gelu": lambda m, x, a: m.gelu_tanh(x) if a.get("approximate", "none") == "tanh" else m.gelu(x),
    "HardSigmoid": lambda m, x, a: m.hard_sigmoid(x, a.get("alpha", 0.2), a.get("beta", 0.5)),
    "HardSwish": lambda m, x, a: m.bind(x * m.hard_sigmoid(x, 1 / 6, 0.5)),
    "Elu": lambda m, x, a: m.select_positive(
        x, m.const(a.get("alpha", 1.0)) * (m.exp(T.min(x, m.const(0.0))) - m.const(1.0))
    ),
    "Sqrt": lambda m, x, a: T.sqrt(x),
    "Reciprocal": lambda m, x, a: m.const(1.0) / x,
    "Neg": lambda m, x, a: m.const(0.0) - x,
    "Abs": lambda m, x, a: T.max(x, m.const(0.0) - x),
    "Floor": lambda m, x, a: T.floor(x),
    "Ceil": lambda m, x, a: T.ceil(x),
    "Identity": lambda m, x, a: x,
}
BINARY: dict[str, Binary] = {
    "Add": lambda m, x, y: x + y,
    "Sub": lambda m, x, y: x - y,
    "Mul": lambda m, x, y: x * y,
    "Div": lambda m, x, y: x / y,
    "Max": lambda m, x, y: T.max(x, y),
    "Min": lambda m, x, y: T.min(x, y),
    "PRelu": lambda m, x, y: m.select_positive(x, x * y),
}
