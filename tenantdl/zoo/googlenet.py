"""GoogLeNet (Szegedy et al., arXiv:1409.4842) in torchvision's structure.

Batch norms (folded here) in place of the paper's LRN, and 3×3 in place of 5×5 in the third
branch, as in torchvision's model. The auxiliary heads serve training only and are left out.
"""

from __future__ import annotations

import onnx

from tenantdl.zoo.layers import BATCH, Net

# Table 1: channels of 1×1 · 3×3 reduce, 3×3 · "5×5" reduce, "5×5" · pool projection.
# Stages end in a max pooling (kernel, stride), the last in none.
_STAGES: tuple[tuple[dict[str, tuple[int, ...]], tuple[int, int] | None], ...] = (
    (
        {
            "inception3a": (64, 96, 128, 16, 32, 32),
            "inception3b": (128, 128, 192, 32, 96, 64),
        },
        (3, 2),
    ),
    (
        {
            "inception4a": (192, 96, 208, 16, 48, 64),
            "inception4b": (160, 112, 224, 24, 64, 64),
            "inception4c": (128, 128, 256, 24, 64, 64),
            "inception4d": (112, 144, 288, 32, 64, 64),
            "inception4e": (256, 160, 320, 32, 128, 128),
        },
        (2, 2),
    ),
    (
        {
            "inception5a": (256, 160, 320, 32, 128, 128),
            "inception5b": (384, 192, 384, 48, 128, 128),
        },
        None,
    ),
)


def googlenet(
    seed: int = 0, *, size: int = 224, width: float = 1.0, classes: int = 1000
) -> onnx.ModelProto:
    """image float32 [N,3,`size`,`size`] → logits float32 [N,`classes`].

    `width` multiplies all channels (at least one remains).
    """
    net = Net("googlenet", seed)
    x = net.input("image", (BATCH, 3, size, size))
    x = _conv(net, x, _scaled(64, width), 7, "conv1", stride=2)
    x = net.max_pool(x, 3, 2, ceil_mode=1)
    x = _conv(net, x, _scaled(64, width), 1, "conv2")
    x = _conv(net, x, _scaled(192, width), 3, "conv3")
    x = net.max_pool(x, 3, 2, ceil_mode=1)
    for modules, pool in _STAGES:
        for name, channels in modules.items():
            net.prefix = f"{name}."
            x = _inception(net, x, tuple(_scaled(count, width) for count in channels))
        net.prefix = ""
        if pool:
            x = net.max_pool(x, *pool, ceil_mode=1)
    x = net.dense(net.global_pool(x, flat=True), classes, "fc")
    net.output(x, "logits", (BATCH, classes))
    return net.model


def _inception(net: Net, x: str, channels: tuple[int, ...]) -> str:
    """Four branches on the same input, concatenated."""
    direct, reduce3, out3, reduce5, out5, projection = channels
    branch1 = _conv(net, x, direct, 1, "branch1")
    branch2 = _conv(net, _conv(net, x, reduce3, 1, "branch2.0"), out3, 3, "branch2.1")
    branch3 = _conv(net, _conv(net, x, reduce5, 1, "branch3.0"), out5, 3, "branch3.1")
    pooled = net.max_pool(x, 3, 1, pad=1, ceil_mode=1)
    branch4 = _conv(net, pooled, projection, 1, "branch4.1")
    return net.concat((branch1, branch2, branch3, branch4))


def _conv(net: Net, x: str, channels: int, kernel: int, name: str, stride: int = 1) -> str:
    return net.relu(net.conv(x, channels, kernel, f"{name}.conv", stride=stride))


def _scaled(channels: int, width: float) -> int:
    return max(1, round(channels * width))
