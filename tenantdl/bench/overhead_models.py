"""Models for `bench overhead`: two that do next to nothing with a tensor of a given size, and one
that keeps a core busy for about a millisecond."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


class Made(NamedTuple):
    """An ONNX file and the shape of its one float32 input."""

    name: str
    file: Path
    shape: tuple[int, ...]


# 1024 bytes and 602 112 bytes.
SMALL, LARGE = (1, 4, 8, 8), (1, 3, 224, 224)
_BUSY, _CHANNELS, _LAYERS = (1, 4, 28, 28), 64, 6
_STEM = 8
# Nodes, and weights by name.
_Graph = tuple[list[Any], dict[str, np.ndarray[Any, Any]]]


def write_models(folder: Path) -> list[Made]:
    """`small`, `large` and `busy`, as ONNX files in `folder`."""
    return [
        _write(folder, "small", SMALL, _stem(8, SMALL), (1, _STEM, 1, 1)),
        _write(folder, "large", LARGE, _stem(32, LARGE), (1, _STEM, 7, 7)),
        _write(folder, "busy", _BUSY, _convolutions(), (1, _CHANNELS, 1, 1)),
    ]


def _stem(size: int, shape: tuple[int, ...]) -> _Graph:
    """A convolution that looks at each number once."""
    conv = helper.make_node("Conv", ["x", "w"], ["y"], strides=[size, size])
    rng = np.random.default_rng(0)
    return [conv], {"w": rng.standard_normal((_STEM, shape[1], size, size), dtype=np.float32)}


def _convolutions() -> _Graph:
    """3×3 convolutions one behind the other, and a mean."""
    rng, nodes, weights = np.random.default_rng(0), [], {}
    channels, last = _BUSY[1], "x"
    for layer in range(_LAYERS):
        shape = (_CHANNELS, channels, 3, 3)
        scale = np.float32((2 / (channels * 9)) ** 0.5)
        weights[f"w{layer}"] = rng.standard_normal(shape, dtype=np.float32) * scale
        conv = [last, f"w{layer}"]
        nodes.append(helper.make_node("Conv", conv, [f"c{layer}"], pads=[1, 1, 1, 1]))
        nodes.append(helper.make_node("Relu", [f"c{layer}"], [f"r{layer}"]))
        channels, last = _CHANNELS, f"r{layer}"
    nodes.append(helper.make_node("GlobalAveragePool", [last], ["y"]))
    return nodes, weights


def _write(
    folder: Path,
    name: str,
    shape: tuple[int, ...],
    built: _Graph,
    output: tuple[int, ...],
) -> Made:
    nodes, weights = built
    graph = helper.make_graph(
        nodes,
        name,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, output)],
        [numpy_helper.from_array(array, key) for key, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    file = folder / f"{name}.onnx"
    onnx.save(model, str(file))
    return Made(name, file, shape)
