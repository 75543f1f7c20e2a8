"""ResNet (He et al., arXiv:1512.03385): ResNet-50 v1.5, and the backbone that SSD-ResNet34 cuts.

Version 1.5 strides in the 3×3 convolution of a bottleneck, not in its first 1×1. Batch norms are
folded into the convolutions. Names are torchvision's.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx

from tenantdl.zoo.layers import BATCH, Net

EXPANSION = 4
# Deviation of a branch relative to its shortcut, small as in trained networks: otherwise rounding
# errors grow from block to block until correct kernels differ by 1e-4.
_BRANCH_GAIN = 0.25


def resnet50(
    seed: int = 0,
    *,
    size: int = 224,
    width: int = 64,
    depths: Sequence[int] = (3, 4, 6, 3),
    classes: int = 1000,
) -> onnx.ModelProto:
    """image float32 [N,3,`size`,`size`] → logits float32 [N,`classes`]."""
    net = Net("resnet50", seed)
    x = stem(net, net.input("image", (BATCH, 3, size, size)), width)
    for stage, depth in enumerate(depths):
        for block in range(depth):
            net.prefix = f"layer{stage + 1}.{block}."
            stride = 2 if stage > 0 and block == 0 else 1
            x = bottleneck(net, x, width * 2**stage, stride)
    net.prefix = ""
    x = net.dense(net.global_pool(x, flat=True), classes, "fc")
    net.output(x, "logits", (BATCH, classes))
    return net.model


def stem(net: Net, image: str, width: int) -> str:
    """7×7 stride 2, then 3×3 max pooling stride 2: a quarter of the image's size."""
    x = net.relu(net.conv(image, width, 7, "conv1", stride=2))
    return net.max_pool(x, 3, 2, pad=1)


def bottleneck(net: Net, x: str, width: int, stride: int) -> str:
    """1×1, 3×3 (strided), 1×1 to 4 × `width` channels, plus the shortcut."""
    y = net.relu(net.conv(x, width, 1, "conv1"))
    y = net.relu(net.conv(y, width, 3, "conv2", stride=stride))
    y = net.conv(y, width * EXPANSION, 1, "conv3", gain=_BRANCH_GAIN)
    return net.relu(net.add(y, _shortcut(net, x, width * EXPANSION, stride)))


def basic_block(net: Net, x: str, width: int, stride: int) -> str:
    """Two 3×3 convolutions (the first strided) plus the shortcut: ResNet-18 and -34."""
    y = net.relu(net.conv(x, width, 3, "conv1", stride=stride))
    y = net.conv(y, width, 3, "conv2", gain=_BRANCH_GAIN)
    return net.relu(net.add(y, _shortcut(net, x, width, stride)))


def _shortcut(net: Net, x: str, channels: int, stride: int) -> str:
    """The identity, or a strided 1×1 where the shape changes."""
    if net.channels[x] == channels and stride == 1:
        return x
    return net.conv(x, channels, 1, "downsample.0", stride=stride, pad=0)
