"""Models for `bench overhead`: two that do next to nothing with a tensor of a given size, and one that
keeps a core busy for about a millisecond."""

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


def write_models(folder: Path) -> list[Made]:
    """`small`, `large` and `busy`, as ONNX files in `folder`."""
    mean = [helper.make_node("GlobalAveragePool", ["x"], ["y"])]
    return [
        _write(folder, "small", SMALL, mean, {}),
        _write(folder, "large", LARGE, mean, {}),
        _write(folder, "busy", _BUSY, *_convolutions()),
    ]


def _convolutions() -> tuple[list[Any], dict[str, np.ndarray[Any, Any]]]:
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
    nodes: list[Any],
    weights: dict[str, np.ndarray[Any, Any]],
) -> Made:
    channels = _CHANNELS if weights else shape[1]
    graph = helper.make_graph(
        nodes,
        name,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, channels, 1, 1))],
        [numpy_helper.from_array(array, key) for key, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    file = folder / f"{name}.onnx"
    onnx.save(model, str(file))
    return Made(name, file, shape)
