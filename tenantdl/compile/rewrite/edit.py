"""Looking around in a graph and changing it, for the patterns.

A pattern looks at a node and the nodes before it, and `substitute`s new nodes for it that compute
the same outputs. Whatever nobody reads any more is swept away after the pass.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from tenantdl.compile.graph import Array, Graph, Node, TensorType


class Editor:
    """One pass over `graph`, which `finish` changes."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.changed = False
        self._outputs = set(graph.outputs)
        self._producers = graph.producers()
        self._uses: Counter[str] = Counter()
        for node in graph.nodes:
            self._uses.update(node.inputs)
        self._replaced: dict[int, list[Node]] = {}
        self._renamed: dict[str, str] = {}
        self._fresh = 0

    # looking

    def producer(self, value: str, *ops: str) -> Node | None:
        """The node that writes `value`, if it is one of `ops` (of any, if none are given)."""
        node = self._producers.get(self.name(value))
        return node if node is not None and (not ops or node.op in ops) else None

    def inner(self, value: str, *ops: str) -> Node | None:
        """Like `producer`, if nothing but the node in hand reads `value`: it may disappear."""
        return self.producer(value, *ops) if self.private(value) else None

    def private(self, value: str) -> bool:
        """Whether one input of one node is the only reader of `value`."""
        name = self.name(value)
        return self._uses[name] == 1 and name not in self._outputs

    def array(self, value: str) -> Array | None:
        """The constant `value`, or None."""
        return self.graph.constants.get(self.name(value))

    def scalar(self, value: str) -> float | None:
        """The one number that constant `value` consists of, or None."""
        array = self.array(value)
        if array is None or array.size != 1 or array.dtype.kind not in "fiu":
            return None
        return float(array.reshape(()))

    def numbers(self, value: str) -> list[int] | None:
        """The integers of constant `value`, or None."""
        array = self.array(value) if value else None
        return None if array is None else [int(x) for x in array.reshape(-1)]

    def type(self, value: str) -> TensorType:
        """Type of a value."""
        return self.graph.types[self.name(value)]

    def shape(self, value: str) -> tuple[int, ...]:
        """Shape of a value."""
        return self.type(value).shape

    def is_float(self, value: str) -> bool:
        """Whether `value` is float32, the only type that patterns touch."""
        return self.type(value).dtype == "float32"

    def name(self, value: str) -> str:
        """What `value` is called now."""
        while value in self._renamed:
            value = self._renamed[value]
        return value

    def constant_side(self, node: Node) -> tuple[str, str] | None:
        """(variable, constant) inputs of a binary node, whichever way round."""
        for a, b in (node.inputs, node.inputs[::-1]):
            if self.array(b) is not None and self.array(a) is None:
                return a, b
        return None

    # changing

    def constant(self, array: Array, hint: str) -> str:
        """A new constant."""
        name = self._name(hint)
        self.graph.constants[name] = array
        self.graph.types[name] = TensorType(tuple(array.shape), array.dtype.name)
        return name

    def ints(self, values: Sequence[int], hint: str) -> str:
        """A new int64 vector."""
        return self.constant(np.array(values, np.int64), hint)

    def value(self, shape: Sequence[int], hint: str, dtype: str = "float32") -> str:
        """A new value that a new node will write."""
        name = self._name(hint)
        self.graph.types[name] = TensorType(tuple(shape), dtype)
        return name

    def substitute(self, node: Node, *nodes: Node) -> None:
        """Put `nodes` in the place of `node`; the last must write its outputs."""
        self._replaced[id(node)] = list(nodes)
        for name in node.inputs:
            self._uses[self.name(name)] -= 1
        for new in nodes:
            new.name = new.name or node.name
            self._uses.update(self.name(name) for name in new.inputs)
            for name in new.outputs:
                self._producers[name] = new
        self.changed = True

    def replace(self, node: Node, op: str, inputs: list[str], attrs: dict[str, Any] | None) -> None:
        """Put one node with the same outputs in the place of `node`."""
        self.substitute(node, Node(op, inputs, list(node.outputs), attrs or {}, node.name))

    def forward(self, node: Node, value: str) -> bool:
        """Let readers of `node`'s output read `value` instead. An output of the graph stays."""
        output = node.outputs[0]
        if output in self._outputs or self.type(output) != self.type(value):
            return False
        value = self.name(value)
        self._renamed[output] = value
        self._uses[value] += self._uses.pop(output, 0)
        self.changed = True
        return True

    def finish(self) -> None:
        """Carry out the changes and drop what nobody reads."""
        graph = self.graph
        graph.nodes = [new for node in graph.nodes for new in self._expand(node)]
        for node in graph.nodes:
            node.inputs = [self.name(name) for name in node.inputs]
        needed = set(graph.outputs)
        kept = []
        for node in reversed(graph.nodes):
            if needed.intersection(node.outputs):
                kept.append(node)
                needed.update(name for name in node.inputs if name)
        graph.nodes = kept[::-1]
        graph.constants = {k: v for k, v in graph.constants.items() if k in needed}
        alive = needed | set(graph.inputs) | {out for node in kept for out in node.outputs}
        graph.types = {name: kind for name, kind in graph.types.items() if name in alive}

    def alive(self, node: Node) -> bool:
        """Whether `node` has not been replaced, and something reads it."""
        return id(node) not in self._replaced and any(
            self._uses[name] > 0 or name in self._outputs for name in node.outputs
        )

    def _expand(self, node: Node) -> list[Node]:
        if id(node) not in self._replaced:
            return [node]
        return [new for inner in self._replaced[id(node)] for new in self._expand(inner)]

    def _name(self, hint: str) -> str:
        base = hint.partition("~")[0]
        while True:
            self._fresh += 1
            name = f"{base}~{self._fresh}"
            if name not in self.graph.types:
                return name
