"""Transposes and reshapes around packed values: carried out where they are read, or not at all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from nets import Net, check

from tenantdl.compile.kernels.transpose import channels_last, turn


def test_turn() -> None:
    """What is a swap of two neighbouring groups of axes."""
    assert turn((2, 3, 4, 5), (0, 3, 1, 2)) == (2, 12, 5)
    assert turn((2, 3, 4, 5), (0, 2, 3, 1)) == (2, 3, 20)
    assert turn((3, 4), (1, 0)) == (1, 3, 4)
    assert turn((1, 3, 4, 1), (0, 2, 1, 3)) == (1, 3, 4)
    assert turn((2, 3, 4, 5), (0, 2, 1, 3)) is None
    assert turn((2, 3, 4, 5), (3, 2, 1, 0)) is None
    assert turn((2, 3), (0, 1)) is None


def test_channels_last() -> None:
    assert channels_last((2, 8, 4, 5), (0, 2, 3, 1))
    assert channels_last((1, 8, 5, 1), (0, 2, 1, 3))
    assert not channels_last((2, 8, 4, 5), (0, 3, 2, 1))
    assert not channels_last((2, 8, 4, 5), (0, 1, 2, 3))


@pytest.mark.parametrize("target", ["native", "x86_64:haswell"])
def test_transposes(tmp_path: Path, target: str) -> None:
    """Row-major ones of all remainders, and between packed and channels last."""
    net = Net()
    for shape in [(2, 35, 18), (1, 16, 64), (3, 5, 40), (1, 70, 7)]:
        net.output(net.op("Transpose", net.input(*shape), perm=[0, 2, 1]))
    image = net.op("Transpose", net.input(2, 9, 70, 24), perm=[0, 3, 1, 2])  # to packed
    y = net.op("Conv", image, net.weight(40, 24, 3, 3), pads=[1] * 4)
    net.output(net.op("Transpose", net.op("Relu", y), perm=[0, 2, 3, 1]))  # from packed
    net.output(image)  # and the same value row-major
    summary = check(net, tmp_path, tolerance=2e-5, target=target)
    assert "generic" not in summary.kinds


@pytest.mark.parametrize("target", ["native", "x86_64:haswell"])
def test_lines_stay_packed(tmp_path: Path, target: str) -> None:
    """A column becomes a row of another rank between convolutions, borders included."""
    net = Net()
    axes = net.const([3], np.int64)
    column = net.op("Conv", net.input(2, 24, 50, 1), net.weight(40, 24, 5, 1), pads=[2, 0, 2, 0])
    row = net.op("Squeeze", net.op("Relu", column), axes)
    z = net.op("Conv", net.op("Tanh", row), net.weight(24, 40, 3), pads=[1, 1])
    wide = net.op("Unsqueeze", z, net.const([2], np.int64))
    image = net.op("Conv", wide, net.weight(16, 24, 3, 3), pads=[1] * 4)  # a border all around
    net.output(image)
    net.output(net.op("GlobalMaxPool", net.op("Conv", z, net.weight(32, 24, 7), pads=[3, 3])))
    summary = check(net, tmp_path, tolerance=2e-5, target=target)
    assert "generic" not in summary.kinds
    assert summary.kinds["layout"] <= 5
