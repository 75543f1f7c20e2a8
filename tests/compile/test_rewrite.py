"""Rewrites: which operators are left, and that the results stay what onnxruntime computes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from nets import Net, check

from tenantdl.compile.frontend import load_graph
from tenantdl.compile.graph import Graph
from tenantdl.compile.rewrite import rewrite

IMAGE = (2, 6, 9, 9)


def _rewritten(net: Net) -> Graph:
    return rewrite(load_graph(net.model()))


def _ops(net: Net) -> dict[str, int]:
    return dict(Counter(node.op for node in _rewritten(net).nodes))


def _conv(net: Net, x: str, outputs: int = 8, **attrs: object) -> str:
    return net.op("Conv", x, net.weight(outputs, IMAGE[1], 3, 3), **attrs)


def _batch_norm(net: Net, x: str, channels: int = 8) -> str:
    parts = [net.weight(channels) for _ in range(3)]
    variance = net.const(np.abs(net.rng.standard_normal(channels)) + 0.5)
    return net.op("BatchNormalization", x, *parts, variance, epsilon=1e-3)


def _erf_gelu(net: Net, x: str, order: int) -> str:
    """½·x·(1 + erf(x/√2)) in the orders seen in the wild."""
    one, half, root = (net.const(number) for number in (1.0, 0.5, np.sqrt(2.0)))
    if order == 0:
        erf = net.op("Erf", net.op("Div", x, root))
        return net.op("Mul", net.op("Mul", x, net.op("Add", erf, one)), half)
    if order == 1:
        erf = net.op("Erf", net.op("Mul", x, net.const(np.sqrt(0.5))))
        return net.op("Mul", net.op("Mul", half, x), net.op("Add", one, erf))
    if order == 2:
        erf = net.op("Erf", net.op("Div", x, root))
        return net.op("Mul", x, net.op("Mul", net.op("Add", erf, one), half))
    erf = net.op("Erf", net.op("Div", x, root))
    return net.op("Div", net.op("Mul", net.op("Add", erf, one), x), net.const(2.0))


def _tanh_gelu(net: Net, x: str, factored: bool) -> str:
    one, half, cube = (net.const(number) for number in (1.0, 0.5, 0.044715))
    if factored:
        square = net.op("Mul", cube, net.op("Mul", x, x))
        inner = net.op("Mul", x, net.op("Add", one, square))
    else:
        inner = net.op("Add", x, net.op("Mul", cube, net.op("Pow", x, net.const(3.0))))
    tanh = net.op("Tanh", net.op("Mul", inner, net.const(np.sqrt(2 / np.pi))))
    return net.op("Mul", net.op("Mul", half, x), net.op("Add", one, tanh))


def _hard_swish(net: Net, x: str, order: int) -> str:
    clipped = net.op("Clip", net.op("Add", x, net.const(3.0)), net.const(0.0), net.const(6.0))
    if order == 0:
        return net.op("Div", net.op("Mul", x, clipped), net.const(6.0))
    if order == 1:
        return net.op("Mul", x, net.op("Div", clipped, net.const(6.0)))
    if order == 2:
        return net.op("Mul", net.op("Mul", clipped, net.const(1 / 6)), x)
    return net.op("Mul", x, net.op("HardSigmoid", x, alpha=1 / 6, beta=0.5))


def _min_max(net: Net, x: str) -> str:
    return net.op("Min", net.op("Max", x, net.const(-1.0)), net.const(1.5))


UNARY: dict[str, tuple[Callable[[Net, str], str], str]] = {
    **{f"erf_gelu_{i}": (partial(_erf_gelu, order=i), "Gelu") for i in range(4)},
    **{f"tanh_gelu_{i}": (partial(_tanh_gelu, factored=bool(i)), "Gelu") for i in range(2)},
    **{f"hard_swish_{i}": (partial(_hard_swish, order=i), "HardSwish") for i in range(4)},
    "silu": (lambda net, x: net.op("Mul", net.op("Sigmoid", x), x), "Silu"),
    "clip": (_min_max, "Clip"),
    "relu": (lambda net, x: net.op("Clip", x, net.const(0.0)), "Relu"),
    "square": (lambda net, x: net.op("Pow", x, net.const(2.0)), "Mul"),
}


@pytest.mark.parametrize("name", UNARY)
def test_functions_of_one_value(name: str) -> None:
    make, op = UNARY[name]
    net = Net()
    net.output(make(net, net.input(4, 30)))
    assert _ops(net) == {op: 1}


def test_functions_of_one_value_compute_the_same(tmp_path: Path) -> None:
    net = Net()
    for make, _ in UNARY.values():
        net.output(make(net, net.op("Mul", net.input(5, 40), net.const(4.0))))
    assert "generic" not in check(net, tmp_path, tolerance=4e-6).kinds


def _near_misses(net: Net, x: str) -> list[str]:
    """Almost the patterns: constants or values differ."""
    y = net.input(4, 30)
    erf = net.op("Add", net.op("Erf", net.op("Div", x, net.const(1.5))), net.const(1.0))
    clipped = net.op("Clip", net.op("Add", x, net.const(2.0)), net.const(0.0), net.const(6.0))
    return [
        net.op("Mul", net.op("Mul", x, erf), net.const(0.5)),
        net.op("Mul", y, net.op("Sigmoid", x)),
        net.op("Div", net.op("Mul", x, clipped), net.const(6.0)),
        net.op("Mul", x, net.op("HardSigmoid", x)),
    ]


def test_near_misses_stay(tmp_path: Path) -> None:
    net = Net()
    net.output(*_near_misses(net, net.input(4, 30)))
    assert not {"Gelu", "Silu", "HardSwish"} & _ops(net).keys()
    check(net, tmp_path)


def test_gate_that_is_an_output_stays() -> None:
    net = Net()
    x = net.input(4, 30)
    gate = net.op("Sigmoid", x)
    net.output(gate, net.op("Mul", x, gate))
    assert _ops(net) == {"Sigmoid": 1, "Mul": 1}


@pytest.mark.parametrize("kind", ["Conv", "ConvTranspose", "MatMul"])
def test_channel_factors_fold(tmp_path: Path, kind: str) -> None:
    net = Net()
    if kind == "MatMul":
        shape: tuple[int, ...] = (8,)
        y = net.op("Add", net.op("MatMul", net.input(5, 12), net.weight(12, 8)), net.weight(8))
    elif kind == "Conv":
        shape = (8, 1, 1)
        y = _batch_norm(net, _conv(net, net.input(*IMAGE)))
    else:
        shape = (8, 1, 1)
        y = net.op("ConvTranspose", net.input(*IMAGE), net.weight(6, 4, 2, 2), group=2)
    y = net.op("Mul", y, net.weight(*shape))
    y = net.op("Div", y, net.const(np.full(shape, 3.0)))
    net.output(net.op("Sub", net.op("Add", y, net.weight(*shape)), net.const(0.5)))
    left = {"MatMul": 1, "Add": 2, "Sub": 1} if kind == "MatMul" else {kind: 1}
    assert _ops(net) == left
    check(net, tmp_path, tolerance=4e-6)


def test_batch_norm_without_convolution(tmp_path: Path) -> None:
    net = Net()
    net.output(_batch_norm(net, net.input(2, 8, 5, 5)), _batch_norm(net, net.input(3, 8)))
    assert _ops(net) == {"Mul": 2, "Add": 2}
    check(net, tmp_path)


def test_factors_that_vary_over_the_image_stay() -> None:
    net = Net()
    net.output(net.op("Mul", _conv(net, net.input(*IMAGE), pads=[1] * 4), net.weight(9, 9)))
    assert _ops(net) == {"Conv": 1, "Mul": 1}


def _pad(net: Net, x: str, amounts: list[int], value: float | None = None) -> str:
    more = [] if value is None else [net.const(value)]
    return net.op("Pad", x, net.const(amounts, np.int64), *more)


def test_padding_goes_into_its_reader(tmp_path: Path) -> None:
    net = Net()
    image = [0, 0, 1, 2, 0, 0, 2, 1]
    net.output(_conv(net, _pad(net, net.input(*IMAGE), image, 0.0), pads=[1, 0, 0, 1]))
    window = {"kernel_shape": [3, 3], "strides": [2, 2]}
    net.output(net.op("AveragePool", _pad(net, net.input(*IMAGE), image), **window))
    net.output(net.op("MaxPool", _pad(net, net.input(*IMAGE), image, -np.inf), **window))
    positive = net.op("Relu", net.input(*IMAGE))
    net.output(net.op("MaxPool", _pad(net, positive, image, 0.0), **window))
    assert "Pad" not in _ops(net)
    check(net, tmp_path)


def test_padding_that_an_operator_cannot_take_stays() -> None:
    net = Net()
    window = {"kernel_shape": [3, 3]}
    image = [0, 0, 1, 1, 0, 0, 1, 1]
    net.output(net.op("MaxPool", _pad(net, net.input(*IMAGE), image, 0.0), **window))
    net.output(_conv(net, _pad(net, net.input(2, 4, 9, 9), [0, 1, 0, 0, 0, 1, 0, 0])))
    net.output(_conv(net, _pad(net, net.input(*IMAGE), image, 1.0)))
    assert _ops(net)["Pad"] == 3


@pytest.mark.parametrize("alpha", [1.0, 0.5])
@pytest.mark.parametrize("trans_a", [0, 1])
@pytest.mark.parametrize("constant", [True, False])
def test_gemm(alpha: float, trans_a: int, constant: bool) -> None:
    net = Net()
    a = net.input(*((5, 9) if not trans_a else (9, 5)))
    b = net.weight(7, 9) if constant else net.input(7, 9)
    gemm = net.op("Gemm", a, b, net.weight(7), alpha=alpha, beta=2.0, transA=trans_a, transB=1)
    net.output(gemm)
    graph = _rewritten(net)
    ops = Counter(node.op for node in graph.nodes)
    assert ops["Gemm"] == 0 and ops["MatMul"] == 1
    assert ops["Transpose"] == trans_a + (not constant)
    assert ops["Mul"] == (alpha != 1.0 and not constant)


def test_gemm_computes_the_same(tmp_path: Path) -> None:
    net = Net()
    net.output(net.op("Gemm", net.input(5, 9), net.weight(7, 9), net.weight(7), transB=1))
    net.output(net.op("Gemm", net.input(9, 5), net.weight(9, 7), alpha=0.5, transA=1))
    bias = net.input(5, 1)
    net.output(net.op("Gemm", net.input(5, 9), net.input(9, 7), bias, alpha=0.5, beta=3.0))
    check(net, tmp_path)


def test_nodes_that_do_nothing_go() -> None:
    net = Net()
    x = net.op("Identity", net.input(3, 4))
    x = net.op("Add", net.op("Mul", net.const(1.0), x), net.const([0.0]))
    x = net.op("Transpose", net.op("Transpose", x, perm=[1, 0]), perm=[1, 0])
    x = net.op("Reshape", net.op("Cast", x, to=1), net.const((3, 4), np.int64))
    net.output(net.op("Neg", x))
    assert _ops(net) == {"Neg": 1}


def test_values_that_would_change_shape_stay() -> None:
    net = Net()
    net.output(net.op("Neg", net.op("Add", net.input(4), net.const(np.zeros((3, 4))))))
    assert _ops(net) == {"Add": 1, "Neg": 1}


def test_outputs_keep_their_names_and_types() -> None:
    net = Net()
    x = net.input(3, 4)
    net.output(net.op("Identity", net.op("Relu", x)), net.op("Mul", x, net.const(1.0)))
    before = load_graph(net.model())
    types = {name: before.types[name] for name in before.outputs}
    after = rewrite(before)
    assert after.outputs == net.outputs
    assert {name: after.types[name] for name in after.outputs} == types
    assert all(name in after.producers() for name in after.outputs)


def test_means_over_images_are_pooling() -> None:
    net = Net()
    net.output(net.op("ReduceMean", net.input(*IMAGE), net.const((-1, 2), np.int64)))
    net.output(net.op("ReduceMean", net.input(*IMAGE), net.const((2, 3), np.int64), keepdims=0))
    assert _ops(net) == {"GlobalAveragePool": 1, "ReduceMean": 1}


def test_one_hot_rows(tmp_path: Path) -> None:
    """A product with one-hot rows is a Gather, indices outside the table give zeros."""
    net = Net()
    net.inputs["tokens"] = np.array([[0, 1, 9, -1, 10, -7, 300]], np.int32)
    column = net.op("Reshape", "tokens", net.const([1, 7, 1], np.int64))
    equal = net.op("Equal", column, net.const(np.arange(10).reshape(1, 1, 10), np.int32))
    rows = net.op("MatMul", net.op("Cast", equal, to=1), net.weight(10, 24))
    net.output(net.op("Relu", net.op("Add", rows, net.weight(24))))
    assert _ops(net).get("Gather") == 1
    assert "MatMul" not in _ops(net)
    check(net, tmp_path)


def _shuffled(net: Net, x: str, shape: tuple[int, ...], parts: int) -> str:
    batch, channels, *image = shape
    split = net.const([batch, parts, channels // parts, *image], np.int64)
    turned = net.op("Transpose", net.op("Reshape", x, split), perm=[0, 2, 1, 3, 4])
    return net.op("Reshape", turned, net.const(shape, np.int64))


@pytest.mark.parametrize("groups", [1, 3])
def test_channel_shuffles_go_into_the_convolution(tmp_path: Path, groups: int) -> None:
    net = Net()
    x = net.input(2, 12, 9, 9)
    y = net.op("Conv", x, net.weight(24, 12 // groups, 1, 1), net.weight(24), group=groups)
    y = net.op("Relu", _batch_norm(net, y, 24))
    z = _shuffled(net, y, (2, 24, 9, 9), 3)
    net.output(net.op("Conv", z, net.weight(24, 1, 3, 3), group=24))
    assert _ops(net) == {"Conv": 2, "Relu": 1}
    check(net, tmp_path, tolerance=5e-6)


def test_channel_shuffles_that_cannot_go_stay() -> None:
    net = Net()
    x = net.input(1, 64, 4, 4)
    blocked = net.op("Conv", x, net.weight(64, 32, 1, 1), group=2)  # whole blocks: fast as it is
    net.output(_shuffled(net, blocked, (1, 64, 4, 4), 2))
    read_twice = net.op("Conv", x, net.weight(64, 64, 1, 1))
    net.output(_shuffled(net, read_twice, (1, 64, 4, 4), 4), read_twice)
    assert _ops(net) == {"Conv": 2, "Reshape": 4, "Transpose": 2}


def test_reshapes_go_behind_activations(tmp_path: Path) -> None:
    """What follows a reshape of a convolution fuses with it; a slice of everything goes."""
    net = Net()
    y = net.op("Conv", net.input(1, 24, 30, 1), net.weight(40, 24, 5, 1))
    ends = [net.const([value], np.int64) for value in (0, 99, 2, 1)]
    y = net.op("Squeeze", net.op("Slice", y, *ends), net.const([3], np.int64))
    y = net.op("Add", y, net.weight(1, 40, 1))
    net.output(net.op("GlobalMaxPool", net.op("Sigmoid", y)))
    graph = _rewritten(net)
    assert [node.op for node in graph.nodes] == ["Conv", "Sigmoid", "Reshape", "GlobalMaxPool"]
    summary = check(net, tmp_path)
    assert "elementwise" not in summary.kinds
