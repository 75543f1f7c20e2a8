"""One node on its way to Relax, and the helpers that the rules share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm import relax, te, tirx

from tenantdl.compile.graph import Array, Graph, Node, TensorType


@dataclass(slots=True)
class Use:
    """A node to convert: its Relax inputs (None = absent) and the types of its outputs.

    Shapes and dtypes of inputs are those of the Relax values, which may be wider than the graph's.
    """

    bb: Any
    node: Node
    inputs: list[Any]
    kinds: list[TensorType | None]
    graph: Graph

    @property
    def attrs(self) -> dict[str, Any]:
        """The attributes."""
        return self.node.attrs

    @property
    def out(self) -> TensorType:
        """The type of the first output."""
        return next(kind for kind in self.kinds if kind is not None)

    def has(self, index: int) -> bool:
        """Whether an input is given."""
        return index < len(self.inputs) and self.inputs[index] is not None

    def shape(self, index: int = 0) -> tuple[int, ...]:
        """The shape of an input."""
        return tuple(int(extent) for extent in self.inputs[index].ty.shape.values)

    def dtype(self, index: int = 0) -> str:
        """The dtype of an input."""
        return str(self.inputs[index].ty.dtype)

    def array(self, index: int) -> Array | None:
        """The array of a constant input; None where it is absent or not constant."""
        return self.graph.constants.get(self.node.inputs[index]) if self.has(index) else None

    def te(self, compute: Callable[..., Any], *inputs: Any) -> Any:
        """A value computed by a tensor expression of `inputs`."""
        return self.bb.emit_te(compute, *inputs, primfunc_name_hint=self.node.op.lower())

    def const(self, value: float, like: int = 0) -> Any:
        """A scalar of the dtype of an input."""
        return relax.const(np.asarray(value, self.dtype(like)), self.dtype(like))

    def emit(self, value: Any) -> Any:
        """Binds an intermediate value, so that its type is known."""
        return self.bb.emit(value)


Rule = Callable[[Use], Any]
"""Returns the Relax value of the output, or a list of them."""


def elementwise(function: Callable[..., Any]) -> Callable[..., Any]:
    """A tensor expression that applies `function` to equal positions of tensors of one shape."""

    def compute(*tensors: Any) -> Any:
        return te.compute(
            tensors[0].shape, lambda *index: function(*(tensor(*index) for tensor in tensors))
        )

    return compute


def immediate(value: float, dtype: str) -> Any:
    """A scalar of a tensor expression."""
    return tirx.const(value, dtype)


def dtype_of(x: Any) -> str:
    """The dtype of an expression or tensor of TE."""
    return str(x.dtype) if isinstance(x, te.Tensor) else str(x.ty)


def normalised(axis: int, rank: int) -> int:
    """An axis counted from the front."""
    return axis + rank if axis < 0 else axis
