"""Parameters and floating-point operations of an ONNX model, counted while it runs."""

from __future__ import annotations

import math
from typing import Any

import onnx
import onnxruntime


def count(model: onnx.ModelProto, inputs: dict[str, Any]) -> tuple[int, int]:
    """Float parameters, and FLOPs (2 a multiply-accumulate) for `inputs`.

    Shapes come from running the model with all of its values as outputs.
    """
    constants = [*model.graph.initializer]
    constants += [
        attribute.t
        for node in model.graph.node
        for attribute in node.attribute
        if node.op_type == "Constant"
    ]
    parameters = sum(
        math.prod(value.dims)
        for value in constants
        if value.data_type == onnx.TensorProto.FLOAT and value.dims
    )
    shapes = _shapes(model, inputs)
    return parameters, sum(_flops(node, shapes) for node in model.graph.node)


def _shapes(model: onnx.ModelProto, inputs: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    names = [
        node.output[0]
        for node in probe.graph.node
        if node.op_type in ("Conv", "ConvTranspose", "Gemm", "MatMul", "LSTM")
    ]
    operands = {name for node in probe.graph.node for name in node.input}
    made = {name for node in probe.graph.node for name in node.output}
    needed = [*names, *(operands & made)]
    del probe.graph.output[:]
    for name in dict.fromkeys(needed):
        probe.graph.output.add().name = name
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        probe.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    values = session.run(None, inputs)
    shapes = {name: value.shape for name, value in zip(dict.fromkeys(needed), values, strict=True)}
    shapes |= {name: value.shape for name, value in inputs.items()}
    return shapes | {value.name: tuple(value.dims) for value in probe.graph.initializer}


def _flops(node: onnx.NodeProto, shapes: dict[str, tuple[int, ...]]) -> int:
    match node.op_type:
        case "Conv":  # each output takes one filter's worth
            return 2 * math.prod(shapes[node.output[0]]) * math.prod(shapes[node.input[1]][1:])
        case "ConvTranspose":  # each input spreads over one filter's worth
            return 2 * math.prod(shapes[node.input[0]]) * math.prod(shapes[node.input[1]][1:])
        case "MatMul":
            return 2 * math.prod(shapes[node.output[0]]) * shapes[node.input[0]][-1]
        case "Gemm":
            return 2 * math.prod(shapes[node.output[0]]) * shapes[node.input[0]][-1]
        case "LSTM":  # input and recurrent matrices, a step and a sequence
            steps = math.prod(shapes[node.input[0]][:2])
            return 2 * steps * sum(math.prod(shapes[name]) for name in node.input[1:3])
        case _:
            return 0
