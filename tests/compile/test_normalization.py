"""Normalisations against onnxruntime, as single nodes and in the parts exporters leave."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from nets import Net, check


def _layer_norm(net: Net, shape: tuple[int, ...], axis: int, bias: bool = True) -> str:
    own = shape[axis:]
    parts = [net.weight(*own)] + ([net.weight(*own)] if bias else [])
    return net.op("LayerNormalization", net.input(*shape), *parts, axis=axis, epsilon=1e-5)


@pytest.mark.parametrize("target", ["native", "x86_64:haswell"])
def test_layer_normalization(tmp_path: Path, target: str) -> None:
    net = Net()
    net.output(_layer_norm(net, (4, 384), 1))
    net.output(_layer_norm(net, (2, 3, 120), 2, bias=False))
    net.output(_layer_norm(net, (3, 5, 7), 1))
    net.output(_layer_norm(net, (6, 1), 1))
    net.output(net.op("Relu", net.op("Add", _layer_norm(net, (2, 50), 1), net.input(2, 50))))
    assert check(net, tmp_path, target=target).kinds == {"normalization": 5}


def test_instance_normalization(tmp_path: Path) -> None:
    net = Net()
    for shape in ((2, 5, 9), (1, 16, 6, 7), (3, 4, 2, 5, 4)):
        parts = [net.weight(shape[1]), net.weight(shape[1])]
        net.output(net.op("InstanceNormalization", net.input(*shape), *parts))
    assert check(net, tmp_path).kinds == {"normalization": 3}


def test_tails_over_several_last_dimensions(tmp_path: Path) -> None:
    net = Net()
    net.output(net.op("Add", _layer_norm(net, (3, 5, 7), 1), net.weight(7)))
    parts = [net.weight(4), net.weight(4)]
    norm = net.op("InstanceNormalization", net.input(2, 4, 6, 9), *parts)
    net.output(net.op("Sub", norm, net.weight(9)))
    assert check(net, tmp_path).kinds == {"normalization": 2}


def test_offset_rows_keep_their_precision(tmp_path: Path) -> None:
    """A large mean must not swallow the variance: two passes, not E[x²] − E[x]²."""
    net = Net()
    x = net.op("Add", net.input(3, 256), net.const(1000.0))
    net.output(net.op("LayerNormalization", x, net.weight(256), net.weight(256)))
    check(net, tmp_path, tolerance=1e-4)


@pytest.mark.parametrize("power", [True, False])
@pytest.mark.parametrize("reciprocal", [True, False])
def test_parts_become_one_node(tmp_path: Path, power: bool, reciprocal: bool) -> None:
    net = Net()
    x, last = net.input(2, 6, 40), net.const((-1,), np.int64)
    mean = net.op("ReduceMean", x, last)
    centred = net.op("Sub", x, mean)
    square = net.op("Pow", centred, net.const(2.0)) if power else net.op("Mul", centred, centred)
    variance = net.op("ReduceMean", square, last)
    root = net.op("Sqrt", net.op("Add", variance, net.const(1e-6)))
    if reciprocal:
        y = net.op("Mul", centred, net.op("Reciprocal", root))
    else:
        y = net.op("Div", centred, root)
    y = net.op("Add", net.op("Mul", y, net.weight(40)), net.weight(40))
    net.output(y)
    assert check(net, tmp_path).kinds == {"normalization": 1}


@pytest.mark.parametrize("divided", [True, False])
def test_root_mean_square(tmp_path: Path, divided: bool) -> None:
    net = Net()
    x = net.input(2, 6, 40)
    variance = net.op("ReduceMean", net.op("Pow", x, net.const(2.0)), net.const((-1,), np.int64))
    root = net.op("Sqrt", net.op("Add", variance, net.const(1e-6)))
    y = net.op("Div", x, root) if divided else net.op("Mul", x, net.op("Reciprocal", root))
    net.output(net.op("Mul", y, net.weight(40)))
    assert check(net, tmp_path).kinds == {"normalization": 1}


@pytest.mark.parametrize("opset", [18, 21])
def test_groups(tmp_path: Path, opset: int) -> None:
    net = Net(opset=opset)
    count = 4 if opset == 18 else 8
    parts = [net.weight(count), net.weight(count)]
    x = net.input(2, 8, 5, 6)
    net.output(net.op("GroupNormalization", x, *parts, num_groups=4, epsilon=1e-3))
    assert check(net, tmp_path).kinds["normalization"] == 1


def test_mean_over_other_axes_is_no_layer_norm(tmp_path: Path) -> None:
    net = Net()
    x = net.input(4, 6, 8)
    mean = net.op("ReduceMean", x, net.const((1,), np.int64))
    centred = net.op("Sub", x, mean)
    square = net.op("Mul", centred, centred)
    variance = net.op("ReduceMean", square, net.const((1,), np.int64))
    root = net.op("Sqrt", net.op("Add", variance, net.const(1e-5)))
    net.output(net.op("Div", centred, root))
    assert "normalization" not in check(net, tmp_path).kinds
