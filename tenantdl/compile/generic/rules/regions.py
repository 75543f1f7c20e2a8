"""Regions of interest and unpooling: indices come with the data, so they are clamped."""

from __future__ import annotations

import math
from typing import Any

from tvm import relax

from tenantdl.compile.frontend.refusal import Refusal
from tenantdl.compile.generic.rules.indexing import safe_indices
from tenantdl.compile.generic.rules.use import Rule, Use


def _roi_align(use: Use) -> Any:
    attrs = use.attrs
    if attrs.get("mode", "avg") != "avg":
        raise Refusal("mode 'max' is not supported")  # TVM's result differs from ONNX's
    scale = attrs.get("spatial_scale", 1.0)
    half = attrs.get("coordinate_transformation_mode", "half_pixel") == "half_pixel"
    rois = use.inputs[1]
    if half:  # half a pixel of the scaled image, which TVM scales again
        rois = use.emit(relax.op.subtract(rois, use.const(0.5 / scale, 1)))
    batch = safe_indices(use, use.inputs[2], use.shape()[0])
    column = use.emit(relax.op.astype(use.emit(relax.op.expand_dims(batch, 1)), use.dtype(1)))
    return relax.op.vision.roi_align(
        use.inputs[0],
        use.emit(relax.op.concat([column, rois], 1)),
        pooled_size=(attrs.get("output_height", 1), attrs.get("output_width", 1)),
        spatial_scale=scale,
        sample_ratio=attrs.get("sampling_ratio", 0),
        aligned=half,
        layout="NCHW",
        mode="avg",
    )


def _max_unpool(use: Use) -> Any:
    if use.has(2):
        raise Refusal("a given output shape is not supported")
    count = math.prod(use.out.shape)
    flat = [use.emit(relax.op.reshape(value, [-1])) for value in use.inputs[:2]]
    blank = use.emit(relax.op.zeros([count], use.out.dtype))
    places = safe_indices(use, flat[1], count)
    filled = use.emit(relax.op.scatter_elements(blank, places, flat[0], axis=0))
    return relax.op.reshape(filled, use.out.shape)


def _refused(use: Use) -> Any:
    raise Refusal("the operator is not supported")


RULES: dict[str, Rule] = {
    "MaxRoiPool": _refused,  # TVM's reads outside of memory for batch indices out of range
    "MaxUnpool": _max_unpool,
    "RoiAlign": _roi_align,
}
