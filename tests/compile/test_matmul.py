"""Products of two values against onnxruntime: batches, broadcasting, partial vectors, tails."""

from __future__ import annotations

from pathlib import Path

import pytest
from nets import Net, check

from tenantdl.compile.kernels.matmul import MatmulSpec, choose
from tenantdl.compile.target import parse_target

CASES = [
    ((4, 9), (9, 20)),
    ((33, 16), (16, 48)),
    ((2, 3, 40, 24), (2, 3, 24, 40)),
    ((2, 3, 5, 24), (3, 24, 32)),  # the right side repeats
    ((3, 7, 8), (2, 3, 8, 5)),  # the left side repeats
    ((2, 1, 6, 10), (1, 4, 10, 17)),  # both do
    ((2, 20, 8), (1, 8, 16)),  # one matrix for all
    ((1, 1), (1, 1)),
]


@pytest.mark.parametrize("target", ["native", "x86_64:haswell"])
def test_products_of_values(tmp_path: Path, target: str) -> None:
    net = Net()
    for a, b in CASES:
        product = net.op("MatMul", net.input(*a), net.input(*b))
        net.output(product)
        net.output(net.op("Relu", net.op("Mul", product, net.const(0.25))))
    left, right = CASES[2]
    net.output(net.op("Sigmoid", net.op("MatMul", net.input(*left), net.input(*right))))
    summary = check(net, tmp_path, target=target)
    assert summary.kinds["matmul"] == len(CASES) + 1
    assert "generic" not in summary.kinds


def test_constant_sides(tmp_path: Path) -> None:
    net = Net()
    net.output(net.op("MatMul", net.weight(2, 6, 12), net.input(2, 12, 20)))
    net.output(net.op("MatMul", net.input(3, 6, 12), net.weight(3, 12, 20)))
    assert check(net, tmp_path).kinds == {"matmul": 2}


def test_rows_are_divided_among_idle_cores() -> None:
    target = parse_target("x86_64:sapphirerapids")
    spec = MatmulSpec((), 256, 64, 64, 1, 1, (), (), target.lanes)
    assert choose(spec, target, 1).task_rows == 256
    assert -(-256 // choose(spec, target, 4).task_rows) % 4 == 0
