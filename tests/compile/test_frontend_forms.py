"""Operators of old opsets, expansions and recurrences keep their meaning."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

from tenantdl.compile.frontend import load_graph
from tenantdl.errors import UserError

from .frontend_tools import check_same, model, node, ops

F = np.float32
ONES = np.ones(3, F)


def one(
    op: str, opset: int, shape: tuple[int, ...], inputs: str = "x", **attrs: Any
) -> onnx.ModelProto:
    return model([node(op, inputs, "y", **attrs)], {"x": shape}, ["y"], opset=opset)


def with_constants(
    op: str, opset: int, shape: tuple[int, ...], constants: dict[str, Any], **attrs: Any
) -> onnx.ModelProto:
    inputs = " ".join(["x", *constants])
    return model([node(op, inputs, "y", **attrs)], {"x": shape}, ["y"], constants, opset=opset)


OLD = [
    one("Clip", 7, (2, 3), min=-0.5, max=0.5),
    one("Clip", 10, (2, 3), min=0.0),
    one("Pad", 9, (1, 1, 3, 3), pads=[0, 0, 1, 2, 0, 0, 0, 1], value=2.0),
    one("Softmax", 9, (2, 3, 4), axis=1),
    one("Softmax", 11, (2, 3, 4)),
    one("LogSoftmax", 11, (2, 3, 4), axis=-1),
    one("Hardmax", 11, (2, 3, 4), axis=1),
    one("Slice", 9, (4, 5), starts=[1, 0], ends=[3, 4], axes=[0, 1]),
    one("Squeeze", 9, (1, 3, 1), axes=[0]),
    one("Squeeze", 9, (1, 3, 1)),
    one("Unsqueeze", 9, (3,), axes=[0, 2]),
    one("ReduceSum", 11, (2, 3, 4), axes=[1], keepdims=0),
    one("ReduceMean", 13, (2, 3, 4), axes=[-1]),
    one("ReduceMax", 11, (2, 3, 4)),
    one("Dropout", 7, (3,), ratio=0.5),
    one("Dropout", 12, (3,)),
    one("Upsample", 7, (1, 1, 2, 3), scales=[1.0, 1.0, 2.0, 2.0], mode="nearest"),
    one("Upsample", 7, (1, 1, 2, 3), scales=[1.0, 1.0, 2.0, 2.0], mode="linear"),
    one("MaxPool", 11, (1, 2, 7, 7), kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_LOWER"),
    one("AveragePool", 11, (1, 2, 6, 7), kernel_shape=[2, 3], auto_pad="SAME_UPPER"),
    with_constants("Upsample", 9, (1, 1, 2, 3), {"s": np.array([1, 1, 3, 2], F)}),
    with_constants("Resize", 10, (1, 1, 4, 4), {"s": np.array([1, 1, 0.5, 2], F)}),
    with_constants(
        "Resize",
        11,
        (1, 1, 4, 4),
        {"r": np.array([], F), "s": np.array([1, 1, 2, 2], F)},
        mode="linear",
        coordinate_transformation_mode="align_corners",
    ),
    with_constants("PRelu", 7, (1, 3, 2), {"s": np.ones((3, 1), F) / 4}),
    with_constants(
        "BatchNormalization", 7, (1, 3, 2), {"s": ONES, "b": ONES, "m": ONES / 2, "v": ONES * 2}
    ),
    with_constants(
        "Conv", 11, (1, 2, 7, 6), {"w": np.ones((3, 2, 3, 2), F)}, auto_pad="SAME_UPPER"
    ),
    with_constants(
        "ConvTranspose",
        11,
        (1, 2, 4, 4),
        {"w": np.ones((2, 3, 3, 3), F)},
        strides=[2, 2],
        output_shape=[9, 8],
    ),
    with_constants("Compress", 11, (4, 2), {"c": np.array([True, False, True])}, axis=0),
]


@pytest.mark.parametrize(
    "proto", OLD, ids=lambda p: f"{p.graph.node[0].op_type}-{p.opset_import[0].version}"
)
def test_old_forms(proto: onnx.ModelProto) -> None:
    check_same(proto)


def test_split_and_top_k_of_old_opsets() -> None:
    proto = model(
        [node("Split", "x", "a b", axis=1, split=[1, 2])], {"x": (2, 3)}, ["a", "b"], opset=9
    )
    check_same(proto)
    proto = model([node("Split", "x", "a b")], {"x": (4, 3)}, ["a", "b"], opset=11)
    check_same(proto)
    proto = model(
        [node("TopK", "x", "v i", k=2)], {"x": (2, 5)}, ["v", "i"], opset=9, dtypes={"i": 7}
    )
    check_same(proto)


def test_operands_aligned_by_axis() -> None:
    """Opset 6: `broadcast` and `axis`."""
    add = node("Add", "x b", "y", broadcast=1, axis=1)
    graph = load_graph(model([add], {"x": (2, 3, 4)}, ["y"], {"b": ONES}, opset=6))
    added = graph.constants[graph.nodes[-1].inputs[1]]
    assert added.shape == (3, 1)
    assert graph.types["y"].shape == (2, 3, 4)


EXPANDED = [
    (one("Celu", 12, (4,), alpha=2.0), {"Celu"}),
    (one("Swish", 24, (4,)), {"Swish"}),
    (one("CenterCropPad", 18, (4, 6)), set()),
    (with_constants("RMSNormalization", 23, (2, 4), {"s": np.ones(4, F)}), {"RMSNormalization"}),
]


@pytest.mark.parametrize(("proto", "gone"), EXPANDED[:2] + EXPANDED[3:], ids=str)
def test_functions_of_the_standard_are_expanded(proto: onnx.ModelProto, gone: set[str]) -> None:
    graph = check_same(proto, with_ort=False)
    assert not gone & set(ops(graph))


def test_what_has_a_kernel_stays_whole() -> None:
    for op in ("Gelu", "HardSwish", "Mish", "Softplus", "Elu", "Selu"):
        assert ops(load_graph(one(op, 20, (4,)))) == [op]


@pytest.mark.parametrize("op", ["RNN", "GRU", "LSTM"])
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
def test_recurrences_unroll(op: str, direction: str) -> None:
    gates = {"RNN": 1, "GRU": 3, "LSTM": 4}[op]
    directions = 2 if direction == "bidirectional" else 1
    rng = np.random.default_rng(0)
    weights = {
        "w": rng.standard_normal((directions, gates * 4, 3)).astype(F),
        "r": rng.standard_normal((directions, gates * 4, 4)).astype(F),
        "b": rng.standard_normal((directions, gates * 8)).astype(F),
        "lengths": np.array([5, 3], np.int32),
        "h": rng.standard_normal((directions, 2, 4)).astype(F),
    }
    outputs = ["y", "yh", "yc"] if op == "LSTM" else ["y", "yh"]
    call = node(op, "x w r b lengths h", " ".join(outputs), hidden_size=4, direction=direction)
    check_same(model([call], {"x": (5, 2, 3)}, outputs, weights, opset=14))


def test_too_long_sequences_are_refused() -> None:
    weights = {"w": np.zeros((1, 16, 3), F), "r": np.zeros((1, 16, 4), F)}
    call = node("LSTM", "x w r", "y", hidden_size=4)
    with pytest.raises(UserError, match=r"node 'LSTM_0' \(LSTM\): a sequence of 100000 steps"):
        load_graph(model([call], {"x": (100000, 2, 3)}, ["y"], weights, opset=14))


def test_group_normalization_of_opset_18_gets_a_scale_a_channel() -> None:
    constants = {"s": np.array([1, 2], F), "b": np.array([0, 1], F)}
    call = node("GroupNormalization", "x s b", "y", num_groups=2)
    graph = load_graph(model([call], {"x": (1, 4, 3)}, ["y"], constants))
    scale = graph.constants[graph.nodes[0].inputs[1]]
    assert scale.tolist() == [1, 1, 2, 2]


@pytest.mark.parametrize("inverse", [0, 1])
@pytest.mark.parametrize("parts", [1, 2])
def test_fourier_transforms_become_matrix_products(inverse: int, parts: int) -> None:
    call = node("DFT", "x", "y", axis=1, inverse=inverse)
    proto = model([call], {"x": (2, 12, parts)}, ["y"], opset=17)
    graph = check_same(proto, with_ort=False)
    assert "MatMul" in ops(graph)
    assert "DFT" not in ops(graph)


def test_short_time_transform() -> None:
    constants = {"step": np.array(4), "window": np.hanning(8).astype(F), "length": np.array(8)}
    call = node("STFT", "x step window length", "y", onesided=1)
    check_same(model([call], {"x": (1, 32, 1)}, ["y"], constants, opset=17), with_ort=False)
