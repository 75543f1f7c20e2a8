"""SSD-ResNet34 at 300×300, the model of MLPerf Training's single-stage detector (81 classes).

Backbone: ResNet-34 up to conv4, whose stride is taken out, so that the first map is 38×38; five
further maps of 19, 10, 5, 3 and 1 (SSD: Liu et al., arXiv:1512.02325). Boxes are decoded and
scores normalised in the graph, as in the reference's `decode_batch`; non-maximum suppression is
left out.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import onnx

from tenantdl.zoo.layers import BATCH, Array, Net
from tenantdl.zoo.resnet import basic_block, stem

IMAGE = 300
MAPS = (38, 19, 10, 5, 3, 1)
BOXES = (4, 6, 6, 6, 4, 4)  # default boxes in a cell of each map
_STEPS = (8, 16, 32, 64, 100, 300)
_SCALES = (21, 45, 99, 153, 207, 261, 315)
_RATIOS = ((2,), (2, 3), (2, 3), (2, 3), (2,), (2,))
_SCALE_XY, _SCALE_WH = 0.1, 0.2
# Further layers: 1×1 channels, 3×3 channels, stride, padding.
_FURTHER = (
    (256, 512, 2, 1),
    (256, 512, 2, 1),
    (128, 256, 2, 1),
    (128, 256, 1, 0),
    (128, 128, 1, 0),
)


def ssd_resnet34(
    seed: int = 0, *, width: int = 64, depths: Sequence[int] = (3, 4, 6), classes: int = 81
) -> onnx.ModelProto:
    """image float32 [N,3,300,300] → boxes float32 [N,8732,4] (left, top, right, bottom in 0..1,
    not clipped), scores float32 [N,8732,`classes`] (softmax; class 0 is the background).

    `width` scales the channels everywhere (64 is the published model).
    """
    net = Net("ssd_resnet34", seed)
    x = stem(net, net.input("image", (BATCH, 3, IMAGE, IMAGE)), width)
    for stage, depth in enumerate(depths):
        for block in range(depth):
            net.prefix = f"layer{stage + 1}.{block}."
            x = basic_block(net, x, width * 2**stage, 2 if stage == 1 and block == 0 else 1)
    maps = [x]
    for index, (inner, outer, stride, pad) in enumerate(_FURTHER):
        net.prefix = f"additional_blocks.{index}."
        x = net.relu(net.conv(x, inner * width // 64, 1, "0"))
        x = net.relu(net.conv(x, outer * width // 64, 3, "2", stride=stride, pad=pad))
        maps.append(x)
    net.prefix = ""
    count = sum(boxes * side**2 for boxes, side in zip(BOXES, MAPS, strict=True))
    net.output(_decode(net, _head(net, maps, 4, "loc")), "boxes", (BATCH, count, 4))
    scores = net.op("Softmax", _head(net, maps, classes, "conf"), axis=-1)
    net.output(scores, "scores", (BATCH, count, classes))
    return net.model


def default_boxes() -> Array:
    """Centre x, centre y, width, height of every default box in 0..1: float32 [8732,4]."""
    boxes: list[tuple[float, float, float, float]] = []
    for index, side in enumerate(MAPS):
        small, large = _SCALES[index] / IMAGE, _SCALES[index + 1] / IMAGE
        sizes = [(small, small), (math.sqrt(small * large),) * 2]
        for ratio in _RATIOS[index]:
            wide, high = small * math.sqrt(ratio), small / math.sqrt(ratio)
            sizes += [(wide, high), (high, wide)]
        cells = IMAGE / _STEPS[index]
        # The reference runs over sizes, then rows, then columns: the heads' [boxes·k,H,W] layout.
        for (w, h), i, j in itertools.product(sizes, range(side), range(side)):
            boxes.append(((j + 0.5) / cells, (i + 0.5) / cells, w, h))
    return np.clip(np.array(boxes, dtype=np.float32), 0, 1)


def _head(net: Net, maps: Sequence[str], width: int, name: str) -> str:
    """A 3×3 convolution on each map, flattened and joined: [N,8732,`width`]."""
    flat = []
    for index, (x, boxes) in enumerate(zip(maps, BOXES, strict=True)):
        y = net.conv(x, boxes * width, 3, f"{name}.{index}")
        flat.append(net.op("Reshape", y, net.ints(f"{name}.{index}.shape", 0, width, -1)))
    return net.op("Transpose", net.op("Concat", *flat, axis=2), perm=(0, 2, 1))


def _decode(net: Net, offsets: str) -> str:
    """Offsets [N,8732,4] relative to the default boxes → left, top, right, bottom."""
    net.prefix = "decode."
    defaults = default_boxes()

    def part(begin: int) -> str:
        bounds = (net.ints("begin", begin), net.ints("end", begin + 2), net.ints("axis", 2))
        return net.op("Slice", offsets, *bounds)

    sizes = net.constant("sizes", defaults[:, 2:])
    shift = net.op("Mul", net.op("Mul", part(0), net.scalar("scale_xy", _SCALE_XY)), sizes)
    centre = net.op("Add", shift, net.constant("centres", defaults[:, :2]))
    growth = net.op("Exp", net.op("Mul", part(2), net.scalar("scale_wh", _SCALE_WH)))
    extent = net.op("Mul", net.op("Mul", growth, sizes), net.scalar("half", 0.5))
    corners = (net.op("Sub", centre, extent), net.op("Add", centre, extent))
    net.prefix = ""
    return net.op("Concat", *corners, axis=2)
