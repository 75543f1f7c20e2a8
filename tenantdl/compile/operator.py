"""What lowering produces: operators, each a call of one kernel on named buffers.

A kernel is a TIR function whose parameters are buffers, inputs before outputs. Operators with equal
kernels share one function (`Kernel.key` is its symbol and its identity). A buffer is a piece of
the activation arena or of the weights; its shape is the physical one (packed, with borders).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tenantdl.compile.graph import Array


@dataclass(frozen=True, slots=True)
class Kernel:
    """A scheduled `tirx.PrimFunc`; equal keys mean equal functions."""

    key: str
    func: Any


@dataclass(frozen=True, slots=True)
class Operator:
    """One kernel call. `args` name buffers in the order of the kernel's parameters; the last
    `n_outputs` of them are written. `kind` is the template's name ("generic" for the fallback)."""

    name: str
    kind: str
    kernel: Kernel
    args: tuple[str, ...]
    n_outputs: int = 1
    flops: int = 0

    @property
    def reads(self) -> tuple[str, ...]:
        """Buffers that are read."""
        return self.args[: len(self.args) - self.n_outputs]

    @property
    def writes(self) -> tuple[str, ...]:
        """Buffers that are written."""
        return self.args[len(self.args) - self.n_outputs :]


@dataclass(frozen=True, slots=True)
class Buffer:
    """Physical storage of a value: row-major `shape` of `dtype`.

    `zeroed`: bytes that no operator writes (borders, padded channels) must read as zero, so the
    storage is shared only with buffers of the same shape. `base`, `offset`: a view that starts
    `offset` elements into another buffer (concatenation in place, reshape).
    """

    shape: tuple[int, ...]
    dtype: str
    zeroed: bool = False
    base: str | None = None
    offset: int = 0


@dataclass(slots=True)
class Program:
    """A lowered graph: operators in execution order over buffers; `constants` are packed weights."""

    operators: list[Operator]
    buffers: dict[str, Buffer]
    constants: dict[str, Array]
    inputs: list[str]
    outputs: list[str]
    notes: list[str] = field(default_factory=list)


def merge_flops(operators: Sequence[Operator]) -> int:
    """Total floating-point operations of a sequence of operators."""
    return sum(operator.flops for operator in operators)
