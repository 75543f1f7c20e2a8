"""Resize of images on packed channels: every mode is a weighted sum of a few rows and columns.

Which rows and columns, and with what weights, is worked out at compile time (ONNX Resize:
coordinate transformation, nearest rounding, linear, cubic) and handed to the kernel as tables, so
one kernel serves all modes: 1, 2 or 4 taps an axis.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

import numpy as np

from tenantdl.compile.context import Context, Form, Group
from tenantdl.compile.graph import Array, Node
from tenantdl.compile.kernels.emit import Emitter, Index, Value
from tenantdl.compile.kernels.layout import Packed
from tenantdl.compile.kernels.registry import Template
from tenantdl.compile.operator import Kernel

_COORDINATES = ("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel")


@dataclass(frozen=True, slots=True)
class Taps:
    """For each output position: indices [out][taps] int32 and weights [out][taps] float32."""

    indices: Array
    weights: Array


def _form(context: Context, node: Node) -> Form | None:
    x, out = context.type(node.inputs[0]), context.type(node.outputs[0])
    if x.dtype != "float32" or len(x.shape) != 4 or x.shape[:2] != out.shape[:2] or not out.size:
        return None
    attrs = node.attrs
    supported = (
        attrs.get("coordinate_transformation_mode", "half_pixel") in _COORDINATES
        and attrs.get("mode", "nearest") in ("nearest", "linear", "cubic")
        and not attrs.get("antialias", 0)
        and not attrs.get("exclude_outside", 0)
        and attrs.get("keep_aspect_ratio_policy", "stretch") == "stretch"
    )
    return "packed" if supported and context.array(node.inputs[0]) is None else None


def _lower(context: Context, group: Group) -> None:
    node = group.anchor
    source, data = context.packed(node.inputs[0])
    target, out = context.new_packed(group.output)
    scales = _scales(context, node)
    tables = []
    for axis, (size, length) in enumerate(((data.height, out.height), (data.width, out.width))):
        scale = scales[axis] if scales else length / size
        taps = axis_taps(size, length, scale, node.attrs)
        tables += [context.constant(taps.indices), context.constant(taps.weights)]
    taps_of_axis = context.program.buffers[tables[0]].shape[1]
    kernel = resize_kernel(data, out, taps_of_axis)
    context.emit(group.name, "resize", kernel, (source, *tables, target))


def _scales(context: Context, node: Node) -> list[float] | None:
    """Scale factors of height and width where the node gives scales; None where it gives sizes."""
    if len(node.inputs) > 2 and node.inputs[2]:
        array = context.array(node.inputs[2])
        if array is not None and array.size:
            values = [float(v) for v in array.reshape(-1)]
            axes = [int(a) % 4 for a in node.attrs.get("axes", range(4))]
            full = dict(zip(axes, values, strict=False))
            return [full.get(2, 1.0), full.get(3, 1.0)]
    return None


def axis_taps(size: int, length: int, scale: float, attrs: dict[str, object]) -> Taps:
    """Taps of one axis of `size` source and `length` output positions (ONNX Resize)."""
    mode = str(attrs.get("mode", "nearest"))
    coordinates = str(attrs.get("coordinate_transformation_mode", "half_pixel"))
    rounding = str(attrs.get("nearest_mode", "round_prefer_floor"))
    alpha = float(str(attrs.get("cubic_coeff_a", -0.75)))
    rows = [
        _taps(_source(i, size, length, scale, coordinates), mode, rounding, alpha)
        for i in range(length)
    ]
    indices = np.array([[min(max(i, 0), size - 1) for i, _ in row] for row in rows], np.int32)
    weights = np.array([[w for _, w in row] for row in rows], np.float32)
    return Taps(indices, weights)


def _source(i: int, size: int, length: int, scale: float, mode: str) -> float:
    if mode == "asymmetric":
        return i / scale
    if mode == "align_corners":
        # ONNX's own cases take the length before rounding down where scales are given.
        return 0.0 if length == 1 else i * (size - 1) / (scale * size - 1)
    if mode == "pytorch_half_pixel" and length == 1:
        return 0.0
    return (i + 0.5) / scale - 0.5


def _taps(x: float, mode: str, rounding: str, alpha: float) -> list[tuple[int, float]]:
    floor = math.floor(x)
    t = x - floor
    if mode == "nearest":
        nearest = {
            "floor": floor,
            "ceil": math.ceil(x),
            "round_prefer_floor": math.ceil(x - 0.5),
            "round_prefer_ceil": math.floor(x + 0.5),
        }[rounding]
        return [(nearest, 1.0)]
    if mode == "linear":
        return [(floor, 1.0 - t), (floor + 1, t)]
    near = [(alpha + 2) * d**3 - (alpha + 3) * d**2 + 1 for d in (t, 1 - t)]
    far = [alpha * d**3 - 5 * alpha * d**2 + 8 * alpha * d - 4 * alpha for d in (t + 1, 2 - t)]
    return [(floor - 1, far[0]), (floor, near[0]), (floor + 1, near[1]), (floor + 2, far[1])]


def sum_of(terms: list[Value]) -> Value:
    """The terms added up, first to last."""
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total


def resize_kernel(data: Packed, out: Packed, taps: int) -> Kernel:
    """Parameters: data, row indices, row weights, column indices, column weights, output."""
    digest = hashlib.sha256(repr((data, out, taps)).encode()).hexdigest()[:12]
    with Emitter(f"resize_{digest}", out.lanes) as e:
        source = e.param("data", data.shape)
        ys, wy = e.param("ys", (out.height, taps), "int32"), e.param("wy", (out.height, taps))
        xs, wx = e.param("xs", (out.width, taps), "int32"), e.param("wx", (out.width, taps))
        target = e.param("out", out.shape)
        rows = out.blocks * out.height
        with e.parallel(out.batch * rows) as task:
            n, block, y = task // rows, task % rows // out.height, task % out.height
            lines = [e.bind(ys[y, i]) for i in range(taps)]
            scales = [e.bind(wy[y, i]) for i in range(taps)]
            with e.serial(out.width) as x:
                columns = [e.bind(xs[x, i]) for i in range(taps)]

                def pixel(line: int, column: int, columns: list[Index] = columns) -> Value:
                    at = data.index(n, block, lines[line], columns[column])
                    return e.load(source, at)

                if taps == 1:
                    value = pixel(0, 0)
                else:
                    lines_sum = [
                        sum_of([pixel(i, j) * e.splat(wx[x, j]) for j in range(taps)])
                        * e.splat(scales[i])
                        for i in range(taps)
                    ]
                    value = sum_of(lines_sum)
                e.store(target, out.index(n, block, y, x), value)
    return e.kernel()


TEMPLATES = {"Resize": Template(_form, _lower)}
