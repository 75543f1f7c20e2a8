"""Reductions against onnxruntime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from nets import Net, check

OPS = ["ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceL2"]
CASES = [
    ((5, 37), (-1,)),
    ((2, 3, 100), (1, 2)),
    ((4, 6, 50), (1,)),
    ((3, 1, 8, 19), (0, 2)),  # a dimension of 1 between
    ((2, 300), (0, 1)),
    ((2, 7, 5), (1, 2)),
    ((1, 1, 9), (0,)),
]


@pytest.mark.parametrize("target", ["native", "x86_64:haswell"])
def test_axes_that_follow_each_other(tmp_path: Path, target: str) -> None:
    net = Net()
    for op in OPS:
        for number, (shape, axes) in enumerate(CASES):
            inputs = [net.input(*shape), net.const(axes, np.int64)]
            net.output(net.op(op, *inputs, keepdims=number % 2))
    summary = check(net, tmp_path, target=target)
    assert summary.kinds == {"reduce": len(OPS) * len(CASES)}


def test_other_axes_and_defaults(tmp_path: Path) -> None:
    net = Net()
    net.output(net.op("ReduceSum", net.input(3, 4, 5), net.const((0, 2), np.int64)))
    net.output(net.op("ReduceMax", net.input(3, 4)))
    summary = check(net, tmp_path)
    assert summary.kinds["reduce"] == 1
