"""Chains of convolutions that run row by row, against onnxruntime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from nets import Net, check

from tenantdl.compile.kernels import chain_lower


@pytest.fixture(autouse=True)
def _always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chains at any size: the images of these tests fit every cache."""
    monkeypatch.setattr(chain_lower, "MIDDLE_SHARE", 0.0)


def _activate(net: Net, value: str, kind: str) -> str:
    if kind == "clip":
        return net.op("Clip", value, net.const(0.0), net.const(6.0))
    return net.op("Mul", value, net.op("Sigmoid", value)) if kind == "silu" else value


def _conv(
    net: Net, x: str, out: int, inner: int, kernel: int, stride: int = 1, group: int = 1
) -> str:
    weight, bias = net.weight(out, inner // group, kernel, kernel), net.weight(out)
    pads = [kernel // 2] * 4
    return net.op("Conv", x, weight, bias, pads=pads, strides=[stride, stride], group=group)


def _block(
    net: Net,
    image: tuple[int, int, int, int],
    widths: tuple[int, int],
    kernel: int,
    stride: int,
    kind: str = "clip",
) -> None:
    """1×1 → depthwise → 1×1 behind another convolution, with a residual where shapes allow."""
    channels, (wide, out) = image[1], widths
    x = _conv(net, net.input(*image), channels, channels, 1)
    y = _activate(net, _conv(net, x, wide, channels, 1), kind)
    y = _activate(net, _conv(net, y, wide, wide, kernel, stride, wide), kind)
    y = _conv(net, y, out, wide, 1)
    net.output(net.op("Add", x, y) if stride == 1 and out == channels else y)


@pytest.mark.parametrize("target", ["native", "x86_64:haswell"])
def test_inverted_residuals(tmp_path: Path, target: str) -> None:
    net = Net()
    _block(net, (1, 16, 20, 20), (96, 24), 3, 2)
    _block(net, (1, 24, 13, 19), (40, 24), 3, 1, "silu")
    _block(net, (4, 5, 9, 31), (20, 70), 5, 2)
    _block(net, (4, 48, 7, 3), (33, 48), 5, 1, "none")
    _block(net, (1, 8, 30, 1), (48, 16), 3, 2)
    summary = check(net, tmp_path, target=target)
    assert summary.kinds["conv_chain"] == 5


@pytest.mark.parametrize("target", ["native", "x86_64:haswell"])
def test_stems_and_missing_last_convolution(tmp_path: Path, target: str) -> None:
    net = Net()
    images = ((1, 3, 37, 45), 3, 2), ((4, 3, 16, 32), 5, 1), ((2, 1, 9, 10), 4, 3)
    for image, kernel, stride in images:
        x = _activate(net, _conv(net, net.input(*image), 32, image[1], kernel, stride), "clip")
        net.output(_activate(net, _conv(net, x, 32, 32, 3, 1, 32), "silu"))
        x = _activate(net, _conv(net, net.input(*image), 20, image[1], kernel, stride), "silu")
        net.output(_conv(net, _conv(net, x, 20, 20, 3, 2, 20), 9, 20, 1))
        x = _conv(net, _conv(net, net.input(*image), 40, image[1], 1), 24, 40, 1)
        x = _activate(net, _conv(net, x, 56, 24, 1), "silu")
        net.output(_activate(net, _conv(net, x, 56, 56, 5, 2, 56), "clip"))
    assert check(net, tmp_path, target=target).kinds["conv_chain"] == 9


def test_values_with_other_readers_are_kept(tmp_path: Path) -> None:
    net = Net()
    x = net.input(1, 16, 12, 12)
    wide = net.op("Relu", _conv(net, x, 32, 16, 1))
    y = _conv(net, wide, 32, 32, 3, 1, 32)
    net.output(wide, _conv(net, y, 16, 32, 1))
    scaled = net.op(
        "Mul", _conv(net, x, 32, 16, 1), net.const(np.arange(32.0).reshape(1, 32, 1, 1))
    )
    net.output(_conv(net, scaled, 32, 32, 3, 2, 32))
    assert check(net, tmp_path).kinds["conv_chain"] == 1


def test_chains_do_not_share_a_convolution(tmp_path: Path) -> None:
    """MobileNet-V1: every 1×1 between two depthwise convolutions could end one or begin one."""
    net = Net()
    y = net.input(1, 16, 20, 20)
    for narrow, wide in ((16, 32), (32, 48), (48, 64)):
        y = _activate(net, _conv(net, y, wide, narrow, 1), "clip")
        y = _activate(net, _conv(net, y, wide, wide, 3, 1, wide), "clip")
    net.output(_conv(net, y, 24, 64, 1))
    assert check(net, tmp_path).kinds["conv_chain"] == 2
