"""Graph → ONNX: to run a graph, or a part of it, in other runtimes and in tests."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import helper, numpy_helper

from tenantdl.compile.frontend.attributes import make_node
from tenantdl.compile.frontend.dtypes import type_proto
from tenantdl.compile.graph import Graph, Node

_OPSET = 21  # the oldest whose GroupNormalization and GridSample are the graph's
_IR_VERSION = 10


def to_onnx(graph: Graph, nodes: Sequence[Node] | None = None) -> onnx.ModelProto:
    """An ONNX model of the graph, or of some of its nodes (in order).

    The inputs of a part are the values it reads and does not make; its outputs are those that
    other nodes read or the graph gives out. Constants become initializers.
    """
    part = graph.nodes if nodes is None else list(nodes)
    inside = {name for node in part for name in node.outputs if name}
    read = dict.fromkeys(name for node in part for name in node.inputs if name)
    if nodes is None:
        inputs, outputs = graph.inputs, graph.outputs
    else:
        ids = {id(node) for node in part}
        used = set(graph.outputs)
        used.update(n for node in graph.nodes if id(node) not in ids for n in node.inputs)
        inputs = [n for n in read if n not in inside and n not in graph.constants]
        outputs = [n for node in part for n in node.outputs if n in used]
    proto = helper.make_graph(
        [make_node(n.op, n.inputs, n.outputs, n.attrs, n.name, n.domain) for n in part],
        graph.name or "graph",
        [_value(graph, name) for name in inputs],
        [_value(graph, name) for name in outputs],
        [
            numpy_helper.from_array(np.asarray(graph.constants[name], order="C"), name)
            for name in read
            if name in graph.constants
        ],
    )
    opset = helper.make_opsetid("", max(_OPSET, _newer(part)))
    return helper.make_model(proto, opset_imports=[opset], ir_version=_IR_VERSION)


def _newer(nodes: Sequence[Node]) -> int:
    """The oldest opset that knows all the operators."""
    first = 1
    for node in nodes:
        version = _OPSET
        while not onnx.defs.has(node.op, version, node.domain):
            version += 1
        first = max(first, version)
    return first


def _value(graph: Graph, name: str) -> onnx.ValueInfoProto:
    kind = graph.types[name]
    return helper.make_value_info(name, type_proto(kind.shape, kind.dtype))
