"""What lowering produces: operators, each a call of one kernel on named buffers.

A kernel is a TIR function whose parameters are buffers, inputs before outputs. Operators with equal
kernels share one function (`Kernel.key` is its symbol and its identity). A buffer is a piece of
the activation arena or of the weights; its shape is the physical one (packed, with borders).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tenantdl.compile.graph import Array, TensorType
from tenantdl.compile.schedules import Choice


@dataclass(frozen=True, slots=True)
class Kernel:
    """A scheduled `tirx.PrimFunc`; equal keys mean equal functions. `flat`: loops, vectors and
    scratch memory only, none of the blocks of TVM's schedules."""

    key: str
    func: Any
    flat: bool = False

    def loop(self) -> int:
        """How many iterations the parallel loop has that is all of this kernel, beside the call
        that announces it; 0 if there is more."""
        from tvm import tirx

        statements = list(getattr(self.func.body, "seq", [self.func.body]))
        announced = len(statements) == 2 and isinstance(statements[0], tirx.Evaluate)
        only = statements[-1]
        if not announced or not isinstance(only, tirx.For) or only.kind != tirx.ForKind.PARALLEL:
            return 0
        return int(only.extent) if isinstance(only.extent, tirx.IntImm) else 0

    def parameters(self) -> list[TensorType]:
        """Shape and dtype of every parameter."""
        return [
            TensorType(tuple(int(extent) for extent in buffer.shape), str(buffer.dtype))
            for buffer in self.func.params
        ]


@dataclass(frozen=True, slots=True)
class Wide:
    """An operator on rows of one request that can take several requests' rows at once, over the
    same packed weights. `kernel(n)`: for n requests; None where there is none."""

    rows: int
    kernel: Callable[[int], Kernel | None]


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
    choices: tuple[Choice[Any], ...] = ()
    wide: Wide | None = None

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

    `zeros` names the pattern of bytes that no operator writes and that must read as zero (borders);
    such storage is shared only with buffers of the same shape and pattern. `base`, `offset`: a view
    that starts `offset` elements into another buffer (concatenation in place, reshape).
    """

    shape: tuple[int, ...]
    dtype: str
    zeros: str = ""
    base: str | None = None
    offset: int = 0


@dataclass(slots=True)
class Lowered:
    """What the generic schedule makes of a run of nodes: operators over row-major buffers. Values
    of the graph keep their names; temporaries and constants have new ones."""

    operators: list[Operator] = field(default_factory=list)
    buffers: dict[str, Buffer] = field(default_factory=dict)
    constants: dict[str, Array] = field(default_factory=dict)


@dataclass(slots=True)
class Program:
    """A lowered graph: operators in execution order over buffers; `constants`: packed weights."""

    operators: list[Operator]
    buffers: dict[str, Buffer]
    constants: dict[str, Array]
    inputs: list[str]
    outputs: list[str]
    notes: list[str] = field(default_factory=list)
