"""EfficientNet-B0 (Tan & Le, arXiv:1905.11946): MBConv with swish and squeeze-and-excitation.

Batch norms are folded into the convolutions; swish is Sigmoid and Mul. The gates of squeeze and
excitation are 1×1 convolutions on a global average, as in torchvision.
"""

from __future__ import annotations

import onnx

from tenantdl.zoo.layers import BATCH, Net
from tenantdl.zoo.mobilenet import round_channels

# Table 1: expansion, kernel, stride of the first, channels, repetitions.
_STAGES = (
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
)
_SQUEEZE = 4  # of a block's input channels
_GATE_GAIN = 0.1  # wide gates, multiplied sixteen times, would let one image drown the others


def efficientnet_b0(
    seed: int = 0, *, size: int = 224, width: float = 1.0, classes: int = 1000
) -> onnx.ModelProto:
    """image float32 [N,3,`size`,`size`] → logits float32 [N,`classes`].

    `width` multiplies the channels, rounded to multiples of 8.
    """
    net = Net("efficientnet_b0", seed)
    net.prefix = "features.0."
    x = net.input("image", (BATCH, 3, size, size))
    x = net.silu(net.conv(x, round_channels(32 * width), 3, "0", stride=2))
    for stage, (expansion, kernel, first_stride, channels, repeats) in enumerate(_STAGES):
        for repeat in range(repeats):
            net.prefix = f"features.{stage + 1}.{repeat}.block."
            stride = first_stride if repeat == 0 else 1
            x = _mbconv(net, x, expansion, kernel, stride, round_channels(channels * width))
    net.prefix = f"features.{len(_STAGES) + 1}."
    x = net.silu(net.conv(x, 4 * net.channels[x], 1, "0"))
    net.prefix = ""
    x = net.dense(net.global_pool(x, flat=True), classes, "classifier.1")
    net.output(x, "logits", (BATCH, classes))
    return net.model


def _mbconv(net: Net, x: str, expansion: int, kernel: int, stride: int, channels: int) -> str:
    """1×1 up, depthwise, squeeze and excitation, 1×1 down, shortcut if it fits."""
    inputs = net.channels[x]
    hidden = inputs * expansion
    y = net.silu(net.conv(x, hidden, 1, "0.0")) if expansion > 1 else x
    y = net.silu(net.conv(y, hidden, kernel, "1.0", stride=stride, groups=hidden))
    squeezed = net.conv(net.global_pool(y, flat=False), max(1, inputs // _SQUEEZE), 1, "2.fc1")
    y = net.gate(y, net.conv(net.silu(squeezed), hidden, 1, "2.fc2", gain=_GATE_GAIN))
    y = net.conv(y, channels, 1, "3.0")
    return net.add(x, y) if stride == 1 and inputs == channels else y
