"""Local response normalisation: template and generic schedule, as onnxruntime computes it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.nets import Net, check


@pytest.mark.parametrize("target", ["native", "x86_64:haswell"])
def test_neighbouring_channels(target: str, tmp_path: Path) -> None:
    net = Net()
    usual = net.op("Conv", net.input(2, 8, 7, 9), net.weight(64, 8, 1, 1))
    usual = net.op("LRN", usual, size=5, alpha=0.9, beta=0.75, bias=1.0)
    net.output(net.op("Conv", usual, net.weight(16, 64, 3, 3), pads=[1] * 4))
    for size, beta in ((3, 0.5), (7, 1.0), (5, 0.6)):  # the last one has no template
        y = net.op("LRN", net.input(1, 32, 5, 4), size=size, alpha=0.5, beta=beta, bias=2.0)
        net.output(y)
    net.output(net.op("LRN", net.input(1, 16, 3, 3), size=5, alpha=1.0))  # one block
    net.output(net.op("LRN", net.input(1, 20, 3, 3), size=5, alpha=1.0))  # ragged: generic
    summary = check(net, tmp_path, target=target, tolerance=5e-6)
    assert summary.kinds["lrn"] == 4
    assert summary.kinds["generic"] >= 2
