"""A counter of parameters and FLOPs, and sessions of the reference runtime."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import pytest

from tenantdl.errors import UserError
from tenantdl.zoo import path

Inputs = dict[str, Any]
Run = Callable[[onnx.ModelProto | Path, Inputs], dict[str, Any]]


@pytest.fixture
def run() -> Run:
    """Runs a model (or its file) on inputs: outputs by name."""
    return run_model


@pytest.fixture
def count() -> Callable[[onnx.ModelProto, Inputs], tuple[int, int]]:
    """Float parameters, and FLOPs (2 a multiply-accumulate) for the inputs."""
    return count_model


@pytest.fixture
def packaged() -> Callable[[str], Path]:
    """The file of a packaged model; skips where its wheel is not installed."""

    def find(name: str) -> Path:
        try:
            return path(name)
        except UserError as error:
            pytest.skip(str(error))

    return find


def run_model(model: onnx.ModelProto | Path, inputs: Inputs) -> dict[str, Any]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    source = str(model) if isinstance(model, Path) else model.SerializeToString()
    session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, inputs), strict=True))


def count_model(model: onnx.ModelProto, inputs: Inputs) -> tuple[int, int]:
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


def _shapes(model: onnx.ModelProto, inputs: Inputs) -> dict[str, tuple[int, ...]]:
    """Shapes of all values, from a run with everything as an output."""
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    values = dict.fromkeys(name for node in probe.graph.node for name in node.output)
    del probe.graph.output[:]
    for name in values:
        probe.graph.output.add().name = name
    shapes = {name: value.shape for name, value in run_model(probe, inputs).items()}
    shapes |= {name: value.shape for name, value in inputs.items()}
    return shapes | {value.name: tuple(value.dims) for value in probe.graph.initializer}


def _flops(node: onnx.NodeProto, shapes: dict[str, tuple[int, ...]]) -> int:
    match node.op_type:
        case "Conv":  # each output takes one filter's worth
            return 2 * math.prod(shapes[node.output[0]]) * math.prod(shapes[node.input[1]][1:])
        case "ConvTranspose":  # each input spreads over one filter's worth
            return 2 * math.prod(shapes[node.input[0]]) * math.prod(shapes[node.input[1]][1:])
        case "MatMul" | "Gemm":
            return 2 * math.prod(shapes[node.output[0]]) * shapes[node.input[0]][-1]
        case "LSTM":  # input and recurrent matrices, a step and a sequence
            steps = math.prod(shapes[node.input[0]][:2])
            return 2 * steps * sum(math.prod(shapes[name]) for name in node.input[1:3])
        case _:
            return 0
