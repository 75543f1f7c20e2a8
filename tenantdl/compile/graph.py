"""The graph between frontend and kernels: ONNX operators, static shapes, constants apart.

The frontend has folded constants, inlined functions and resolved control flow, so that a node is
one ONNX operator on tensors whose shapes and dtypes are known. Semantics are those of ONNX at
`GRAPH_OPSET`; the frontend converts older models. Values are row-major.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

GRAPH_OPSET = 18

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class TensorType:
    """A static shape and a NumPy dtype name ("float32", "int64", "bool", ...)."""

    shape: tuple[int, ...]
    dtype: str

    @property
    def size(self) -> int:
        """Number of elements."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def nbytes(self) -> int:
        """Bytes of the row-major tensor."""
        return self.size * np.dtype(self.dtype).itemsize


@dataclass(slots=True)
class Node:
    """One ONNX operator. An absent optional input or output is the empty string."""

    op: str
    inputs: list[str]
    outputs: list[str]
    attrs: dict[str, Any] = field(default_factory=dict)
    name: str = ""
    domain: str = ""


@dataclass(slots=True)
class Graph:
    """Nodes in topological order. `types` knows every value: inputs, constants, node outputs.
    `metadata`: what the model's file says of itself, such as the characters it tells apart."""

    name: str
    inputs: list[str]
    outputs: list[str]
    nodes: list[Node]
    constants: dict[str, Array]
    types: dict[str, TensorType]
    metadata: dict[str, str] = field(default_factory=dict)

    def consumers(self) -> dict[str, list[Node]]:
        """Value name → nodes that read it (a node reading it twice is listed once)."""
        users: dict[str, list[Node]] = {}
        for node in self.nodes:
            for name in dict.fromkeys(node.inputs):
                if name:
                    users.setdefault(name, []).append(node)
        return users

    def producers(self) -> dict[str, Node]:
        """Value name → the node that writes it."""
        return {name: node for node in self.nodes for name in node.outputs if name}

    def values(self) -> Iterator[str]:
        """Every value name, inputs and constants first."""
        yield from self.inputs
        yield from self.constants
        for node in self.nodes:
            yield from (name for name in node.outputs if name)
