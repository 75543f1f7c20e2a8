"""Elementwise programs: fused behind a convolution or matmul, or a kernel of their own.

A program is a list of steps in single assignment form. Value 0 is the input (an accumulator),
values 1 … k are the operands, then come the results of the steps; the last one is stored.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tenantdl.compile.kernels.emit import Value
from tenantdl.compile.kernels.vmath import BINARY, UNARY, VectorMath

LONG_STEPS = frozenset({"Sigmoid", "Silu", "Tanh", "Exp", "Erf", "Gelu", "Elu", "Mish", "Softplus"})
Attributes = tuple[tuple[str, Any], ...]


@dataclass(frozen=True, slots=True)
class Step:
    """One elementwise operator; `args` are value numbers."""

    op: str
    args: tuple[int, ...]
    attrs: Attributes = ()


@dataclass(frozen=True, slots=True)
class Operand:
    """A further input. `access` says how it is read at an output element:

    full     same place (`layout` is its layout when packed)
    channel  one value a channel (packed: [blocks][lanes], row-major: the last dimension)
    image    one value a channel and image (a squeeze-excite gate, [batch][blocks][1][1][lanes])
    scalar   one value for all, `value`, which is compiled in
    """

    access: str
    layout: Any = None
    value: float = 0.0


@dataclass(frozen=True, slots=True)
class Program:
    """Operands and steps; no steps means that the input is stored as it is."""

    operands: tuple[Operand, ...] = ()
    steps: tuple[Step, ...] = ()

    @property
    def parameters(self) -> tuple[Operand, ...]:
        """Operands that are kernel parameters, in order."""
        return tuple(operand for operand in self.operands if operand.access != "scalar")

    @property
    def long(self) -> bool:
        """Whether a step is a long polynomial. A tile then stores its sums and runs the program
        over them in a loop: unrolled over 28 accumulators it would be most of the code."""
        return any(step.op in LONG_STEPS for step in self.steps)

    def apply(self, math: VectorMath, value: Value, load: Callable[[int], Value]) -> Value:
        """The result for input `value`; `load(i)` reads parameter i where it is first needed."""
        values: dict[int, Value] = {0: value}
        numbers = iter(range(len(self.operands)))
        parameter = {
            1 + position: next(numbers)
            for position, operand in enumerate(self.operands)
            if operand.access != "scalar"
        }

        def get(number: int) -> Value:
            if number not in values:
                operand = self.operands[number - 1]
                values[number] = (
                    math.const(operand.value)
                    if operand.access == "scalar"
                    else math.bind(load(parameter[number]))
                )
            return values[number]

        for position, step in enumerate(self.steps):
            args = [get(number) for number in step.args]
            values[1 + len(self.operands) + position] = math.bind(_call(math, step, args))
        return values[len(self.operands) + len(self.steps)] if self.steps else value


EMPTY = Program()


def supported(op: str) -> bool:
    """Whether `op` can be a step."""
    return op in UNARY or op in BINARY


def _call(math: VectorMath, step: Step, args: list[Value]) -> Value:
    if step.op in UNARY:
        return UNARY[step.op](math, args[0], dict(step.attrs))
    return BINARY[step.op](math, args[0], args[1])
