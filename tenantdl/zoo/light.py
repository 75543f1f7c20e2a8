"""The `light_*` models of the onnx wheel: published topologies whose weights are constants.

Most weights there are ConstantOfShape nodes that yield 0.02 everywhere: all classes come out
equal, so that a wrong kernel would hardly show. `fill` puts seeded weights in their place, scaled
as in `layers` along the graph, and takes initializers off the inputs, where IR version 3 lists
them. Topology, operators and opset (9) stay the file's own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, numpy_helper

from tenantdl.zoo.layers import IR_VERSION, filters, moments, relu

Array = NDArray[Any]


def fill(file: Path, seed: int) -> onnx.ModelProto:
    """The model in `file` with all its floating-point weights replaced by seeded ones."""
    model = onnx.load(file)
    graph = model.graph
    constants = {value.name: numpy_helper.to_array(value) for value in graph.initializer}
    inputs = [value for value in graph.input if value.name not in constants]
    nodes = [node for node in graph.node if node.op_type != "ConstantOfShape"]
    shapes = {
        node.output[0]: tuple(constants.pop(node.input[0]).tolist())
        for node in graph.node
        if node.op_type == "ConstantOfShape"
    }
    shapes |= {name: value.shape for name, value in constants.items() if value.dtype.kind == "f"}
    constants |= _Filler(shapes, seed).run([value.name for value in inputs], nodes)
    used = {name for node in nodes for name in node.input}
    for field in (graph.node, graph.input, graph.initializer):
        del field[:]
    graph.node.extend(nodes)
    graph.input.extend(inputs)
    for name, values in constants.items():
        if name in used:
            graph.initializer.append(numpy_helper.from_array(values, name))
    model.ir_version = IR_VERSION
    return model


class _Filler:
    """Draws the weights in the order of the nodes, tracking (mean, deviation) of each value."""

    def __init__(self, shapes: dict[str, tuple[int, ...]], seed: int) -> None:
        self.shapes = shapes
        self.rng = np.random.default_rng(seed)
        self.weights: dict[str, Array] = {}
        self.moments: dict[str, tuple[float, float]] = {}
        self.inputs: frozenset[str] = frozenset()
        self.alias: dict[str, str] = {}  # weights behind Unsqueeze or Reshape

    def run(self, inputs: Sequence[str], nodes: Sequence[NodeProto]) -> dict[str, Array]:
        """Weights by name."""
        self.inputs = frozenset(inputs)
        self.moments = dict.fromkeys(inputs, (0.0, 1.0))
        for node in nodes:
            names = [self.alias.get(name, name) for name in node.input]
            weights = [name for name in names if name in self.shapes]
            data = [self.moments[name] for name in names if name in self.moments]
            if not data:
                self.alias[node.output[0]] = weights[0]
            for output in node.output if data else ():
                self.moments[output] = self._visit(node, weights, data)
        return self.weights

    def _visit(
        self, node: NodeProto, weights: Sequence[str], data: Sequence[tuple[float, float]]
    ) -> tuple[float, float]:
        """Draw the node's weights; returns the moments of its output."""
        match node.op_type:
            case "Conv" | "Gemm":
                self._matrix(weights[0], node, data[0][1])
                self._around(0.0, weights[1:])
                return 0.0, 1.0
            case "BatchNormalization":  # scale, bias, mean, variance
                self._around(1.0, (weights[0], weights[3]))
                self._around(0.0, weights[1:3])
            case "Mul":
                self._around(1.0, weights)
            case "Add":
                self._around(0.0, weights)
            case "Sum":
                means, deviations = zip(*data, strict=True)
                return sum(means), math.hypot(*deviations)
            case "Concat":
                means, deviations = zip(*data, strict=True)
                return sum(means) / len(data), math.hypot(*deviations) / math.sqrt(len(data))
            case "Relu":
                return moments(relu, *data[0])
        return data[0]

    def _matrix(self, name: str, node: NodeProto, std: float) -> None:
        """[out, in, ...] for inputs of deviation `std`; Gemm's may have leading ones (Reshape)."""
        shape = self.shapes[name]
        centred = node.input[0] not in self.inputs
        if node.op_type == "Gemm":
            values = filters(self.rng, shape[-2:], std, centred=centred)
        else:
            grouped = any(a.name == "group" and a.i > 1 for a in node.attribute)
            values = filters(self.rng, shape, std, centred=centred and not grouped)
        self.weights[name] = values.reshape(shape)

    def _around(self, centre: float, names: Sequence[str]) -> None:
        """`centre` plus a tenth of a unit normal."""
        for name in names:
            values = self.rng.standard_normal(self.shapes[name], dtype=np.float32)
            self.weights[name] = np.float32(centre) + np.float32(0.1) * values
