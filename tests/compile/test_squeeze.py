"""Squeeze-and-excite between depthwise and 1×1 convolutions, against onnxruntime."""

from __future__ import annotations

from pathlib import Path

import pytest
from nets import Net, check

from tenantdl.compile.kernels import chain_lower


def _squeezed(
    net: Net, image: tuple[int, ...], hidden: int, out: int, stride: int, gate: str
) -> str:
    """A depthwise convolution and what gates it; the value before the last convolution."""
    wide = image[1]
    x = net.op("Conv", net.input(*image), net.weight(wide, wide, 1, 1), net.weight(wide))
    x = net.op("Mul", x, net.op("Sigmoid", x)) if gate == "Sigmoid" else net.op("Relu", x)
    kernel = net.weight(wide, 1, 3, 3)
    x = net.op("Conv", x, kernel, pads=[1] * 4, strides=[stride] * 2, group=wide)
    x = net.op("Mul", x, net.op("Sigmoid", x)) if gate == "Sigmoid" else net.op("Relu", x)
    pooled = net.op("GlobalAveragePool", x)
    y = net.op("Relu", net.op("Conv", pooled, net.weight(hidden, wide, 1, 1), net.weight(hidden)))
    y = net.op(gate, net.op("Conv", y, net.weight(wide, hidden, 1, 1), net.weight(wide)))
    return net.op("Mul", y, x) if out % 2 else net.op("Mul", x, y)


@pytest.mark.parametrize("chained", [False, True])
@pytest.mark.parametrize("target", ["native", "x86_64:haswell"])
def test_squeeze_and_excite(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str, chained: bool
) -> None:
    monkeypatch.setattr(chain_lower, "MIDDLE_SHARE", 0.0 if chained else 1e9)
    net = Net()
    cases = (
        ((1, 32, 14, 14), 8, 24, 1, "Sigmoid"),
        ((4, 20, 9, 31), 5, 7, 2, "HardSigmoid"),
        ((2, 150, 7, 5), 110, 33, 1, "Sigmoid"),
    )
    for image, hidden, out, stride, gate in cases:
        product = _squeezed(net, image, hidden, out, stride, gate)
        net.output(net.op("Conv", product, net.weight(out, image[1], 1, 1), net.weight(out)))
    kinds = check(net, tmp_path, target=target).kinds
    assert kinds["squeeze"] == len(cases)
    assert kinds.get("conv_chain", 0) == (len(cases) if chained else 0)
    assert "pool" not in kinds and "elementwise" not in kinds


def test_products_that_others_read_are_made(tmp_path: Path) -> None:
    net = Net()
    product = _squeezed(net, (1, 16, 8, 8), 4, 16, 1, "Sigmoid")
    net.output(net.op("Conv", product, net.weight(16, 16, 1, 1)), net.op("Relu", product))
    product = _squeezed(net, (1, 16, 8, 8), 4, 16, 1, "Sigmoid")
    net.output(net.op("Conv", product, net.weight(16, 16, 3, 3)))
    assert "squeeze" not in check(net, tmp_path).kinds
