"""Pooling, resizing, concatenation and elementwise work on packed values, against onnxruntime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from nets import Net, check


def _packed(net: Net, channels: int, height: int, width: int, batch: int = 2) -> str:
    """A value in packed form: the output of a 1×1 convolution."""
    x = net.input(batch, 16, height, width)
    return net.op("Conv", x, net.weight(channels, 16, 1, 1))


def test_pools(tmp_path: Path) -> None:
    net = Net()
    for attrs in [
        {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]},
        {"kernel_shape": [2, 2], "strides": [2, 2]},
        {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1},
        {"kernel_shape": [2, 2], "strides": [1, 1], "auto_pad": "SAME_UPPER"},
        {"kernel_shape": [3, 5], "strides": [1, 3], "pads": [1, 2, 0, 1]},
    ]:
        x = _packed(net, 24, 13, 18)
        net.output(net.op("MaxPool", x, **attrs), net.op("AveragePool", x, **attrs))
        if "auto_pad" not in attrs and "ceil_mode" not in attrs:
            net.output(net.op("AveragePool", x, count_include_pad=1, **attrs))
    x = _packed(net, 40, 5, 7)
    net.output(net.op("MaxPool", x, kernel_shape=[2, 2], dilations=[2, 2]))
    net.output(net.op("GlobalAveragePool", x), net.op("GlobalMaxPool", x))
    net.output(net.op("ReduceMean", x, net.const([2, 3], np.int64), keepdims=1))
    summary = check(net, tmp_path)
    assert "generic" not in summary.kinds


@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
def test_resize(tmp_path: Path, mode: str) -> None:
    net = Net()
    for coordinates in ("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel"):
        for height, width in ((2.0, 2.0), (1.5, 0.6), (3.0, 1.0)):
            x = _packed(net, 20, 6, 10)
            scales = net.const([1.0, 1.0, height, width])
            attrs = {"mode": mode, "coordinate_transformation_mode": coordinates}
            net.output(net.op("Resize", x, "", scales, **attrs))
    x = _packed(net, 16, 4, 4)
    net.output(net.op("Resize", x, "", "", net.const([2, 16, 7, 9], np.int64), mode=mode))
    summary = check(net, tmp_path, tolerance=1e-5)
    assert "generic" not in summary.kinds


@pytest.mark.parametrize("batch", [1, 2])
def test_concat_in_place(tmp_path: Path, batch: int) -> None:
    """Nested concatenations need no copy, and their borders serve the convolutions behind."""
    net = Net()
    a, b = _packed(net, 32, 6, 6, batch), _packed(net, 16, 6, 6, batch)
    first = net.op("Concat", net.op("Relu", a), b, axis=1)
    c = net.op("Conv", first, net.weight(20, 48, 3, 3), pads=[1] * 4)
    second = net.op("Concat", first, c, axis=1)
    net.output(net.op("Conv", second, net.weight(8, 68, 3, 3), pads=[1] * 4))
    twice = net.op("Concat", b, b, first, axis=1)
    net.output(net.op("Relu", twice))
    summary = check(net, tmp_path)
    assert "generic" not in summary.kinds


def test_concat_of_ragged_blocks(tmp_path: Path) -> None:
    """Channel counts that fill no blocks, and a reader that needs a border."""
    net = Net()
    parts = [_packed(net, channels, 5, 7) for channels in (24, 24, 3, 40, 1)]
    whole = net.op("Concat", *parts, axis=1)
    net.output(net.op("Conv", whole, net.weight(16, 92, 3, 3), pads=[1] * 4), whole)
    summary = check(net, tmp_path)
    assert "generic" not in summary.kinds


def test_elementwise(tmp_path: Path) -> None:
    """Gates, channel vectors, numbers and chains; also on row-major values with odd sizes."""
    net = Net()
    x = _packed(net, 24, 5, 9)
    gate = net.op(
        "Sigmoid", net.op("Conv", net.op("GlobalAveragePool", x), net.weight(24, 24, 1, 1))
    )
    net.output(net.op("Mul", x, gate))
    channel = net.weight(1, 24, 1, 1)
    y = net.op("Add", net.op("Mul", x, channel), net.const(0.5))
    net.output(net.op("Div", net.op("HardSwish", y), net.const(2.0)), net.op("Tanh", y))
    net.output(net.op("Sub", net.const(1.0), net.op("Exp", y)))
    plain = net.input(3, 7, 11)
    z = net.op("Mul", net.op("Add", plain, net.weight(11)), net.const(3.0))
    net.output(net.op("LeakyRelu", z, alpha=0.1), net.op("Elu", z), net.op("Max", z, plain))
    net.output(net.op("Relu", net.input(1)), net.op("Sigmoid", net.input(5000)))
    net.output(net.op("PRelu", x, net.weight(24, 1, 1)))
    check(net, tmp_path, tolerance=5e-6)
