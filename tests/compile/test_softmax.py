"""Softmax and LogSoftmax against onnxruntime, along every axis."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from nets import Net, check

CASES = [
    ((6, 128), -1),
    ((3, 7), 1),
    ((2, 5, 1000), 2),
    ((40, 2), -1),
    ((2, 21, 6, 7), 1),
    ((9, 33), 0),
    ((1, 4, 50), 1),
    ((3, 1), 1),
]


@pytest.mark.parametrize("target", ["native", "x86_64:haswell"])
def test_axes(tmp_path: Path, target: str) -> None:
    net = Net()
    for number, (shape, axis) in enumerate(CASES):
        # wide enough that exp would overflow without the shift
        wide = net.op("Mul", net.input(*shape), net.const(60.0))
        net.output(net.op(("Softmax", "LogSoftmax")[number % 3 % 2], wide, axis=axis))
    summary = check(net, tmp_path, target=target)
    assert summary.kinds["softmax"] == len(CASES)


def test_rows_sum_to_one_when_one_element_dominates(tmp_path: Path) -> None:
    net = Net()
    x = net.const(np.array([[-3.4e38, 0.0, 1e30, -1e30]], np.float32))
    net.output(net.op("Softmax", net.op("Add", net.input(1, 4), x)))
    assert check(net, tmp_path).kinds["softmax"] == 1
