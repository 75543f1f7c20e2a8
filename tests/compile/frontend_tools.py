"""What the frontend's tests share: small models from text, and runs in other runtimes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from tenantdl.compile.frontend import load_graph, to_onnx
from tenantdl.compile.graph import Array, Graph


def model(
    nodes: list[onnx.NodeProto],
    inputs: Mapping[str, tuple[int | str, ...]],
    outputs: list[str],
    constants: Mapping[str, Any] | None = None,
    *,
    opset: int = 18,
    dtypes: Mapping[str, int] | None = None,
    functions: list[onnx.FunctionProto] | None = None,
    opsets: Mapping[str, int] | None = None,
) -> onnx.ModelProto:
    """A model whose values are float32 unless `dtypes` says otherwise."""
    kinds = dtypes or {}
    graph = helper.make_graph(
        nodes,
        "model",
        [helper.make_tensor_value_info(n, kinds.get(n, 1), s) for n, s in inputs.items()],
        [helper.make_tensor_value_info(n, kinds.get(n, 1), None) for n in outputs],
        [numpy_helper.from_array(np.asarray(v), n) for n, v in (constants or {}).items()],
    )
    imports = [helper.make_opsetid(d, v) for d, v in {"": opset, **(opsets or {})}.items()]
    return helper.make_model(graph, opset_imports=imports, functions=functions or [], ir_version=8)


def node(op: str, inputs: str, outputs: str, **attrs: Any) -> onnx.NodeProto:
    """A node; inputs and outputs are separated by spaces, "-" is an absent one."""
    names = [[n if n != "-" else "" for n in text.split()] for text in (inputs, outputs)]
    return helper.make_node(op, *names, **attrs)


def random_inputs(graph: Graph, seed: int = 0) -> dict[str, Array]:
    """Inputs of the graph: normal floats, small integers, booleans."""
    rng = np.random.default_rng(seed)
    values: dict[str, Array] = {}
    for name in graph.inputs:
        kind = graph.types[name]
        if kind.dtype.startswith("float"):
            values[name] = rng.standard_normal(kind.shape).astype(kind.dtype)
        elif kind.dtype == "bool":
            values[name] = rng.integers(0, 2, kind.shape).astype(bool)
        else:
            values[name] = rng.integers(0, 5, kind.shape).astype(kind.dtype)
    return values


def ort(proto: onnx.ModelProto | str, inputs: Mapping[str, Array]) -> list[Array]:
    """The outputs by onnxruntime, without its optimisations."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    source = proto if isinstance(proto, str) else proto.SerializeToString()
    session = onnxruntime.InferenceSession(source, options, ["CPUExecutionProvider"])
    return list(session.run(None, dict(inputs)))


def reference(proto: onnx.ModelProto, inputs: Mapping[str, Array]) -> list[Array]:
    """The outputs by ONNX's reference implementation."""
    return list(ReferenceEvaluator(proto).run(None, dict(inputs)))


def check_same(proto: onnx.ModelProto, *, with_ort: bool = True, atol: float = 1e-5) -> Graph:
    """Loads a model and compares the graph's outputs with the model's. Returns the graph."""
    graph = load_graph(proto)
    inputs = random_inputs(graph)
    run = ort if with_ort else reference
    for found, expected in zip(run(to_onnx(graph), inputs), run(proto, inputs), strict=True):
        assert found.dtype == expected.dtype
        assert found.shape == expected.shape
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=atol)
    return graph


def ops(graph: Graph) -> list[str]:
    """The operators of a graph, in order."""
    return [each.op for each in graph.nodes]
