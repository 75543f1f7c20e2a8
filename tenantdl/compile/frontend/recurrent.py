"""RNN, GRU and LSTM over sequences of static length, unrolled into matrix products and activations.

The products of all inputs with the input weights are one MatMul before the first step; a step adds
the product of the state with the recurrent weights. Sequences shorter than the longest are masked:
a step beyond the end keeps the state and writes zero, which is right in both directions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tenantdl.compile.frontend.builder import Builder
from tenantdl.compile.frontend.refusal import STEPS_MAX, Refusal
from tenantdl.compile.frontend.scope import Call, Handler, Reader

_DEFAULTS = {"RNN": ["Tanh"], "GRU": ["Sigmoid", "Tanh"], "LSTM": ["Sigmoid", "Tanh", "Tanh"]}
_GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
# Activation → (takes alpha, takes beta), as they are drawn from the two lists of attributes.
_PARAMETERS = {
    "Affine": (1.0, 0.0),
    "Elu": (1.0, None),
    "HardSigmoid": (0.2, 0.5),
    "LeakyRelu": (0.01, None),
    "ScaledTanh": (1.0, 1.0),
    "ThresholdedRelu": (1.0, None),
}

Activation = Callable[[str], str]


@dataclass(slots=True)
class _Cell:
    """One direction: weights transposed for MatMul, biases, activations, lengths of sequences."""

    b: Builder
    op: str
    hidden: int
    recurrent: str  # [hidden, gates * hidden]
    bias_recurrent: str  # [gates * hidden] or ""
    peepholes: list[str]  # each [hidden]: input, output, forget
    activations: list[Activation]
    linear_before_reset: bool
    coupled: bool
    clip: float

    def split(self, value: str, parts: int) -> list[str]:
        """Equal parts along the last axis."""
        if parts == 1:
            return [value]
        return self.b.emit("Split", [value], {"axis": -1, "num_outputs": parts}, [""] * parts)

    def add(self, *terms: str) -> str:
        """Sum of the terms that are there."""
        present = [term for term in terms if term]
        total = present[0]
        for term in present[1:]:
            total = self.b.op("Add", total, term)
        return total

    def clipped(self, value: str) -> str:
        """The argument of an activation, within ±clip."""
        if not self.clip:
            return value
        dtype = self.b.dtype(value)
        low, high = (self.b.constant(sign * self.clip, dtype) for sign in (-1, 1))
        return self.b.op("Clip", value, low, high)

    def step(self, x: str, h: str, c: str) -> tuple[str, str]:
        """New (hidden, cell) state from the products of this step's input and the old states."""
        match self.op:
            case "RNN":
                total = self.add(x, self.b.op("MatMul", h, self.recurrent), self.bias_recurrent)
                return self.activations[0](self.clipped(total)), ""
            case "GRU":
                return self._gru(x, h), ""
            case _:
                return self._lstm(x, h, c)

    def _gru(self, x: str, h: str) -> str:
        b, f, g = self.b, self.activations[0], self.activations[1]
        xz, xr, xh = self.split(x, 3)
        wz, wr, wh = self.split(self.recurrent, 3)
        bz, br, bh = self.split(self.bias_recurrent, 3) if self.bias_recurrent else ("", "", "")
        z = f(self.clipped(self.add(xz, b.op("MatMul", h, wz), bz)))
        r = f(self.clipped(self.add(xr, b.op("MatMul", h, wr), br)))
        if self.linear_before_reset:
            reset = b.op("Mul", r, self.add(b.op("MatMul", h, wh), bh))
            candidate = self.add(xh, reset)
        else:
            candidate = self.add(xh, b.op("MatMul", b.op("Mul", r, h), wh), bh)
        new = g(self.clipped(candidate))
        kept = b.op("Mul", z, b.op("Sub", h, new))  # (1 - z) * new + z * h
        return b.op("Add", new, kept)

    def _lstm(self, x: str, h: str, c: str) -> tuple[str, str]:
        b = self.b
        f, g, act = self.activations
        total = self.add(x, b.op("MatMul", h, self.recurrent), self.bias_recurrent)
        i, o, forget, new = self.split(total, 4)
        pi, po, pf = self.peepholes or ["", "", ""]
        i = f(self.clipped(self.add(i, b.op("Mul", pi, c) if pi else "")))
        if self.coupled:
            forget = b.op("Sub", b.constant(1.0, b.dtype(i)), i)
        else:
            forget = f(self.clipped(self.add(forget, b.op("Mul", pf, c) if pf else "")))
        new = g(self.clipped(new))
        cell = b.op("Add", b.op("Mul", forget, c), b.op("Mul", i, new))
        o = f(self.clipped(self.add(o, b.op("Mul", po, cell) if po else "")))
        return b.op("Mul", o, act(cell)), cell


def _recurrent(reader: Reader, call: Call) -> list[str]:
    b = reader.builder
    batch_first = bool(call.attrs.get("layout", 0))
    data = call.inputs[0]
    if batch_first:
        data = b.op("Transpose", data, perm=[1, 0, 2])
    if len(b.shape(data)) != 3:
        raise Refusal(f"its input {list(b.shape(data))} must have three dimensions")
    steps, batch, _ = b.shape(data)
    if steps > STEPS_MAX or steps < 1:
        raise Refusal(f"a sequence of {steps} steps is not within 1 to {STEPS_MAX}")
    direction = call.attrs.get("direction", "forward")
    backwards = {"forward": [False], "reverse": [True], "bidirectional": [False, True]}[direction]
    if b.shape(call.inputs[1])[0] != len(backwards):
        raise Refusal(f"its weights are not for {len(backwards)} directions")
    masks = _masks(b, call.input(4), steps, batch)
    runs = [
        _direction(b, call, data, masks, index, reverse) for index, reverse in enumerate(backwards)
    ]
    first = b.constant([0], "int64")
    every = [
        b.op("Concat", *(b.op("Unsqueeze", run[0][step], first) for run in runs), axis=0)
        for step in range(steps)
    ]
    y = b.op("Concat", *(b.op("Unsqueeze", part, first) for part in every), axis=0)
    results = [y] + [
        b.op("Concat", *(b.op("Unsqueeze", run[index], first) for run in runs), axis=0)  # type: ignore[arg-type]
        for index in ((1, 2) if call.op == "LSTM" else (1,))
    ]
    if batch_first:
        perms = [[2, 0, 1, 3], [1, 0, 2], [1, 0, 2]]
        results = [
            b.op("Transpose", value, perm=perm) for value, perm in zip(results, perms, strict=False)
        ]
    return results[: len(call.outputs)]


def _masks(b: Builder, lengths: str, steps: int, batch: int) -> list[str]:
    """Per step a bool [batch, 1]: within the sequence. Empty where all are of full length."""
    known = b.const(lengths) if lengths else None
    if not lengths or (known is not None and bool((known == steps).all())):
        return []
    column = b.op("Reshape", lengths, b.constant([batch, 1], "int64"))
    return [b.op("Greater", column, b.constant(step, b.dtype(lengths))) for step in range(steps)]


def _part(b: Builder, value: str, index: int) -> str:
    """The share of one direction of a stacked parameter; "" where it is absent."""
    return b.op("Gather", value, b.constant(index, "int64"), axis=0) if value else ""


def _direction(
    b: Builder, call: Call, data: str, masks: list[str], index: int, reverse: bool
) -> tuple[list[str], str, str]:
    """Hidden states by step, and the last hidden and cell states, of one direction."""
    steps, batch, features = b.shape(data)
    cell, weights, bias = _cell(b, call, index)
    flat = b.op("Reshape", data, b.constant([steps * batch, features], "int64"))
    products = cell.add(b.op("MatMul", flat, weights), bias)
    width = b.shape(products)[-1]
    products = b.op("Reshape", products, b.constant([steps, batch, width], "int64"))
    h = _initial(b, call, 5, index, batch, cell.hidden)
    c = _initial(b, call, 6, index, batch, cell.hidden) if call.op == "LSTM" else ""
    states = [""] * steps
    for step in reversed(range(steps)) if reverse else range(steps):
        x = b.op("Gather", products, b.constant(step, "int64"), axis=0)
        new_h, new_c = cell.step(x, h, c)
        states[step] = new_h
        if masks:
            zero = b.constant(0, b.dtype(h))
            states[step] = b.op("Where", masks[step], new_h, zero)
            new_h = b.op("Where", masks[step], new_h, h)
            new_c = b.op("Where", masks[step], new_c, c) if new_c else ""
        h, c = new_h, new_c
    return states, h, c


def _initial(b: Builder, call: Call, index: int, direction: int, batch: int, hidden: int) -> str:
    if not call.input(index):
        return b.constant(np.zeros((batch, hidden), b.dtype(call.inputs[0])))
    value = call.inputs[index]
    if call.attrs.get("layout", 0):
        value = b.op("Transpose", value, perm=[1, 0, 2])
    return _part(b, value, direction)


def _cell(b: Builder, call: Call, index: int) -> tuple[_Cell, str, str]:
    """The cell of a direction, its input weights [features, gates * hidden], its input bias."""
    gates = _GATES[call.op]
    recurrent = b.op("Transpose", _part(b, call.inputs[2], index), perm=[1, 0])
    hidden = b.shape(recurrent)[0]
    weights = b.op("Transpose", _part(b, call.inputs[1], index), perm=[1, 0])
    if b.shape(recurrent)[1] != gates * hidden or b.shape(weights)[1] != gates * hidden:
        raise Refusal("its weights do not fit its hidden size")
    bias = bias_recurrent = ""
    if call.input(3):
        both = _part(b, call.inputs[3], index)
        bias, bias_recurrent = b.emit("Split", [both], {"axis": 0, "num_outputs": 2}, ["", ""])
        if not call.attrs.get("linear_before_reset", 0):  # else it is scaled apart, in every step
            bias, bias_recurrent = b.op("Add", bias, bias_recurrent), ""
    peepholes = []
    if call.op == "LSTM" and call.input(7):
        both = _part(b, call.inputs[7], index)
        peepholes = b.emit("Split", [both], {"axis": 0, "num_outputs": 3}, [""] * 3)
    cell = _Cell(
        b,
        call.op,
        hidden,
        recurrent,
        bias_recurrent,
        peepholes,
        _activations(b, call, index),
        bool(call.attrs.get("linear_before_reset", 0)),
        bool(call.attrs.get("input_forget", 0)),
        float(call.attrs.get("clip", 0.0)),
    )
    return cell, weights, bias


def _activations(b: Builder, call: Call, direction: int) -> list[Activation]:
    """The activations of a direction; alpha and beta go to those that take them, in order."""
    names = call.attrs.get("activations") or _DEFAULTS[call.op] * 2
    alphas = iter(call.attrs.get("activation_alpha", []))
    betas = iter(call.attrs.get("activation_beta", []))
    made = []
    for name in names:
        alpha, beta = _PARAMETERS.get(name, (None, None))
        alpha = next(alphas, alpha) if alpha is not None else None
        beta = next(betas, beta) if beta is not None else None
        made.append(_activation(b, name, alpha, beta))
    count = len(_DEFAULTS[call.op])
    chosen = made[direction * count : (direction + 1) * count]
    if len(chosen) != count:
        raise Refusal(f"needs {count} activations a direction")
    return chosen


def _activation(b: Builder, name: str, alpha: float | None, beta: float | None) -> Activation:
    def scaled(factor: float | None, value: str) -> str:
        return b.op("Mul", value, b.constant(factor, b.dtype(value)))

    match name:
        case "Sigmoid" | "Tanh" | "Relu" | "Softsign" | "Softplus":
            return lambda value: b.op(name, value)
        case "LeakyRelu" | "Elu" | "ThresholdedRelu":
            return lambda value: b.op(name, value, alpha=alpha)
        case "HardSigmoid":
            return lambda value: b.op(name, value, alpha=alpha, beta=beta)
        case "Affine":
            return lambda value: b.op("Add", scaled(alpha, value), b.constant(beta, b.dtype(value)))
        case "ScaledTanh":
            return lambda value: scaled(alpha, b.op("Tanh", scaled(beta, value)))
        case _:
            raise Refusal(f"unknown activation '{name}'")


HANDLERS: dict[str, Handler] = {name: _recurrent for name in _GATES}
