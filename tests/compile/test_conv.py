"""Convolutions of every kind against onnxruntime, through the whole pipeline."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from nets import Net, check

from tenantdl.compile.kernels.winograd_transform import Transform

# channels, outputs, height, width, kernel, stride, pads, dilation, groups
DIRECT = [
    (16, 16, 5, 5, 1, 1, 0, 1, 1),
    (24, 40, 9, 19, 3, 1, 2, 2, 1),  # ragged channels, uneven tiles
    (32, 48, 13, 13, 3, 2, 1, 1, 1),
    (64, 16, 7, 7, 3, 1, 2, 2, 1),  # tiled across rows
    (16, 80, 6, 30, 5, 1, 4, 2, 1),
    (16, 32, 17, 15, 3, 1, 2, 2, 1),  # dilated
    (32, 32, 8, 9, 3, 1, 1, 1, 2),  # grouped by whole blocks
    (24, 12, 8, 8, 3, 1, 1, 1, 3),  # grouped, ragged
    (3, 32, 21, 18, 7, 2, 3, 1, 1),  # stem on a planar image
    (1, 8, 10, 10, 3, 1, 0, 1, 1),
    (40, 1, 4, 4, 1, 1, 0, 1, 1),
    (128, 200, 1, 1, 1, 1, 0, 1, 1),
]
DEPTHWISE = [
    (16, 16, 12, 14, 3, 1, 1, 1, 16),
    (24, 24, 11, 7, 3, 2, 1, 1, 24),
    (48, 48, 9, 9, 5, 2, 2, 1, 48),
    (16, 16, 9, 9, 9, 1, 4, 1, 16),
    (160, 160, 9, 33, 5, 1, 4, 2, 160),
]


def _conv(net: Net, case: tuple[int, ...], batch: int) -> str:
    channels, outputs, height, width, kernel, stride, pad, dilation, groups = case
    return net.op(
        "Conv",
        net.input(batch, channels, height, width),
        net.weight(outputs, channels // groups, kernel, kernel),
        net.weight(outputs),
        strides=[stride] * 2,
        pads=[pad] * 4,
        dilations=[dilation] * 2,
        group=groups,
    )


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("target", ["native", "x86_64:haswell"])
def test_direct_and_depthwise(tmp_path: Path, batch: int, target: str) -> None:
    net = Net()
    for case in DIRECT + DEPTHWISE:
        net.output(_conv(net, case, batch))
    summary = check(net, tmp_path, target=target)
    assert summary.kinds["depthwise_conv2d"] == len(DEPTHWISE)
    assert summary.kinds["conv2d"] == len(DIRECT)
    assert "generic" not in summary.kinds


def test_strided_pointwise_convolutions_read_copied_pixels(tmp_path: Path) -> None:
    net = Net()
    x = net.op("Relu", net.input(2, 40, 13, 10))
    narrow = net.op("Conv", x, net.weight(96, 40, 1, 1), strides=[2, 2])  # copied for many only
    net.output(net.op("Conv", x, net.weight(16, 40, 3, 3), pads=[1] * 4), narrow)
    shortcut = net.op("Conv", x, net.weight(160, 40, 1, 1), net.weight(160), strides=[2, 3])
    again = net.op("Conv", x, net.weight(144, 40, 1, 1), strides=[2, 3])
    net.output(net.op("Relu", shortcut), again)
    summary = check(net, tmp_path)
    assert summary.kinds["subsample"] == 1


def test_columns(tmp_path: Path) -> None:
    """One-dimensional work along the height, as exporters of sequence models write it."""
    net = Net()
    x = net.input(2, 32, 40, 1)
    y = net.op("Conv", x, net.weight(48, 32, 5, 1), pads=[2, 0, 2, 0])
    z = net.op("Conv", net.op("Relu", y), net.weight(16, 48, 3, 1), strides=[2, 1])
    net.output(net.op("Sigmoid", z))
    flat = net.op("Conv", net.input(2, 24, 33), net.weight(16, 24, 3), pads=[1, 1])
    net.output(flat)
    check(net, tmp_path)


def test_chain_shares_borders_and_fuses(tmp_path: Path) -> None:
    """A residual block: borders between convolutions, the sum and activations in epilogues."""
    net = Net()
    stem = net.op("Relu", _conv(net, (3, 32, 20, 20, 3, 2, 1, 1, 1), 2))

    def conv(x: str, channels: int, outputs: int, kernel: int, groups: int = 1) -> str:
        weight = net.weight(outputs, channels // groups, kernel, kernel)
        pads = [kernel // 2] * 4
        return net.op("Conv", x, weight, net.weight(outputs), pads=pads, group=groups)

    a = net.op("Clip", conv(stem, 32, 48, 1), net.const(0.0), net.const(6.0))
    b = net.op("Relu", conv(a, 48, 48, 3, 48))
    c = net.op("Add", conv(b, 48, 32, 3), stem)
    d = net.op("Relu", net.op("Add", conv(stem, 32, 32, 1), c))
    net.output(d)
    summary = check(net, tmp_path)
    assert summary.kinds.get("elementwise", 0) == 0


def test_transposed(tmp_path: Path) -> None:
    net = Net()
    for channels, outputs, kernel, stride, pad, extra in [
        (16, 16, 2, 2, 0, 0),
        (24, 8, 4, 2, 1, 0),
        (16, 20, 3, 2, 1, 1),
        (32, 16, 3, 1, 1, 0),
        (16, 16, 2, 3, 0, 0),
    ]:
        x = net.input(2, channels, 5, 6)
        net.output(
            net.op(
                "ConvTranspose",
                x,
                net.weight(channels, outputs, kernel, kernel),
                net.weight(outputs),
                strides=[stride] * 2,
                pads=[pad] * 4,
                output_padding=[extra] * 2,
            )
        )
    summary = check(net, tmp_path)
    assert "generic" not in summary.kinds


@pytest.mark.parametrize(("batch", "target"), [(1, "native"), (2, "native"), (4, "x86_64:haswell")])
def test_winograd(tmp_path: Path, batch: int, target: str) -> None:
    """Tile sizes, images that tiles do not divide, ragged channels, operands in epilogues."""
    net = Net()
    sides = [(64, 64, 56), (128, 96, 28), (64, 128, 14), (40, 56, 19), (88, 24, 33)]
    for channels, outputs, side in sides:
        x = net.input(batch, channels, side, side)
        y = net.op(
            "Conv", x, net.weight(outputs, channels, 3, 3), net.weight(outputs), pads=[1] * 4
        )
        net.output(net.op("Relu", net.op("Add", y, net.input(batch, outputs, side, side))))
    summary = check(net, tmp_path, tolerance=2e-5, target=target)
    assert summary.kinds["conv2d_winograd"] >= 4


@pytest.mark.parametrize("target", ["native", "x86_64:haswell"])
def test_winograd_lines(tmp_path: Path, target: str) -> None:
    """Kernels of one row or column, and other sizes than 3×3."""
    net = Net()
    for kernel, pads in [((1, 3), (0, 1)), ((5, 1), (2, 0)), ((1, 7), (0, 3)), ((2, 2), (0, 1))]:
        x = net.input(2, 72, 30, 31)
        weight = net.weight(96, 72, *kernel)
        y = net.op("Conv", x, weight, net.weight(96), pads=[*pads, *pads])
        net.output(net.op("Sigmoid", y))
    sequence = net.input(1, 128, 101)
    net.output(net.op("Conv", sequence, net.weight(64, 128, 5)))
    net.output(net.op("Conv", net.input(1, 64, 20, 20), net.weight(64, 64, 5, 5), pads=[2] * 4))
    summary = check(net, tmp_path, tolerance=1e-5, target=target)
    assert summary.kinds["conv2d_winograd"] >= 5


@pytest.mark.parametrize(("m", "r"), [(2, 3), (4, 3), (6, 3), (4, 2), (3, 5), (4, 5), (2, 7)])
def test_winograd_transform(m: int, r: int) -> None:
    """y = Aᵀ [(G g) ⊙ (Bᵀ d)] is the sliding dot product, to the accuracy claimed."""

    class Math:
        """VectorMath on NumPy scalars."""

        def const(self, value: float) -> np.float32:
            return np.float32(value)

        def bind(self, value: np.float32) -> np.float32:
            return value

    transform = Transform(m, r)
    rng = np.random.default_rng(0)
    d, g = rng.standard_normal((transform.points, 256)), rng.standard_normal((256, r))
    inputs = transform.input(Math(), list(d.astype(np.float32)))  # type: ignore[arg-type]
    weights = (g @ transform.weights().T).astype(np.float32).T
    products = [(a * b).sum(dtype=np.float32) for a, b in zip(inputs, weights, strict=True)]
    outputs = transform.output(Math(), products)  # type: ignore[arg-type]
    expected = [(d[i : i + r].T * g).sum() for i in range(m)]
    assert np.abs(np.array(outputs) - expected).max() <= 2e-6 * 256**0.5 * 3


@pytest.mark.parametrize("target", ["native", "x86_64:haswell"])
def test_few_outputs(tmp_path: Path, target: str) -> None:
    """One to three channels out, row-major, transposed or not, with operands behind."""
    net = Net()

    def features(channels: int) -> str:
        x = net.input(2, channels, 11, 20)
        return net.op("Relu", net.op("Conv", x, net.weight(channels, channels, 1, 1)))

    for channels, outputs, kernel in [(24, 1, 1), (40, 3, 3), (64, 2, 5)]:
        x, weight = features(channels), net.weight(outputs, channels, kernel, kernel)
        y = net.op("Conv", x, weight, net.weight(outputs), pads=[kernel // 2] * 4)
        net.output(net.op("Sigmoid", net.op("Add", y, net.input(2, outputs, 11, 20))))
    for channels, kernel, stride, pad in [
        (24, 2, 2, 0),
        (32, 4, 2, 1),
        (32, 4, 4, 0),
        (48, 3, 1, 1),
    ]:
        weight = net.weight(channels, 1, kernel, kernel)
        attrs = {"strides": [stride] * 2, "pads": [pad] * 4}
        net.output(net.op("ConvTranspose", features(channels), weight, net.weight(1), **attrs))
    summary = check(net, tmp_path, target=target)
    assert summary.kinds["conv_narrow"] == 7


def test_one_row_with_a_border_is_not_folded(tmp_path: Path) -> None:
    """A 1×1 convolution of one long row writes inside the border that the next one reads."""
    net = Net()
    row = net.op("Conv", net.input(1, 48, 1, 80), net.weight(32, 48, 1, 1), net.weight(32))
    net.output(
        net.op("Conv", row, net.weight(32, 1, 1, 7), net.weight(32), pads=[0, 3, 0, 3], group=32)
    )
    check(net, tmp_path)
