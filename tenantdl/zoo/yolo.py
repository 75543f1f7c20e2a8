"""Tiny YOLOv2 (Redmon & Farhadi, arXiv:1612.08242), darknet's yolov2-tiny-voc: 20 classes.

Batch norms are folded into the convolutions. The sixth pooling has stride 1 and SAME padding, so
that the map stays 13×13. The output is the raw map: box decoding (sigmoid, exp, five anchors) and
non-maximum suppression follow outside the graph, as in the ONNX model zoo's file.
"""

from __future__ import annotations

import onnx

from tenantdl.zoo.layers import BATCH, Net

_ANCHORS, _BOX = 5, 5  # boxes a cell; x, y, width, height, objectness
_SLOPE = 0.1


def tiny_yolov2(
    seed: int = 0, *, size: int = 416, width: int = 16, classes: int = 20
) -> onnx.ModelProto:
    """image float32 [N,3,`size`,`size`] in 0..1 → grid float32 [N,125,`size`/32,`size`/32].

    `width`: channels of the first layer (doubled five times, 64-fold at the end).
    """
    net = Net("tiny_yolov2", seed)
    x = net.input("image", (BATCH, 3, size, size))
    for index, factor in enumerate((1, 2, 4, 8, 16, 32, 64, 64)):
        net.prefix = f"models.{index}."
        x = net.conv(x, width * factor, 3, "conv")
        x = net.leaky_relu(x, _SLOPE)
        if index < 5:
            x = net.max_pool(x, 2, 2)
        elif index == 5:
            x = net.max_pool(x, 2, 1, auto_pad="SAME_UPPER")
    net.prefix = "models.8."
    outputs = _ANCHORS * (_BOX + classes)
    x = net.conv(x, outputs, 1, "conv")
    net.prefix = ""
    net.output(x, "grid", (BATCH, outputs, size // 32, size // 32))
    return net.model
