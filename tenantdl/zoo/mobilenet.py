"""MobileNet-V2 (Sandler et al., arXiv:1801.04381): inverted residuals, depthwise 3×3, ReLU6.

Batch norms are folded into the convolutions; ReLU6 is Clip, as exporters write it. Names are
torchvision's.
"""

from __future__ import annotations

import onnx

from tenantdl.zoo.layers import BATCH, Net

# Table 2 of the paper: expansion, channels, repetitions, stride of the first.
_STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


def mobilenet_v2(
    seed: int = 0, *, size: int = 224, width: float = 1.0, classes: int = 1000
) -> onnx.ModelProto:
    """image float32 [N,3,`size`,`size`] → logits float32 [N,`classes`].

    `width` multiplies the channels, rounded to multiples of 8 as in the paper's code; the last
    convolution never goes below 1280 channels.
    """
    net = Net("mobilenet_v2", seed)
    net.prefix = "features.0."
    x = net.input("image", (BATCH, 3, size, size))
    x = net.relu6(net.conv(x, round_channels(32 * width), 3, "0", stride=2))
    index = 1
    for expansion, channels, repeats, first_stride in _STAGES:
        for repeat in range(repeats):
            net.prefix = f"features.{index}.conv."
            stride = first_stride if repeat == 0 else 1
            x = _inverted_residual(net, x, expansion, round_channels(channels * width), stride)
            index += 1
    net.prefix = f"features.{index}."
    x = net.relu6(net.conv(x, max(1280, round_channels(1280 * width)), 1, "0"))
    net.prefix = ""
    x = net.dense(net.global_pool(x, flat=True), classes, "classifier.1")
    net.output(x, "logits", (BATCH, classes))
    return net.model


def _inverted_residual(net: Net, x: str, expansion: int, channels: int, stride: int) -> str:
    """1×1 up by `expansion`, depthwise 3×3, 1×1 down without activation, shortcut if it fits."""
    inputs = net.channels[x]
    hidden = inputs * expansion
    y = net.relu6(net.conv(x, hidden, 1, "0.0")) if expansion > 1 else x
    y = net.relu6(net.conv(y, hidden, 3, "1.0", stride=stride, groups=hidden))
    y = net.conv(y, channels, 1, "2")
    return net.add(x, y) if stride == 1 and inputs == channels else y


def round_channels(channels: float, divisor: int = 8) -> int:
    """To the nearest multiple of `divisor`, never more than 10 % down (the paper's code)."""
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * channels else rounded
