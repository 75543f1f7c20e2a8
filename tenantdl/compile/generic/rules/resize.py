"""Resize: one pass an axis, each output a weighted sum of a few inputs whose places and weights are
computed now. Semantics: ONNX's Resize-19, with the mode tf_half_pixel_for_nn of opset 11 added.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm import relax, te

from tenantdl.compile.frontend.refusal import Refusal
from tenantdl.compile.generic.rules.use import Rule, Use, immediate, normalised
from tenantdl.compile.graph import Array


@dataclass(frozen=True, slots=True)
class _Axis:
    """How one axis is resized: `roi` is its part of tf_crop_and_resize."""

    axis: int
    before: int
    after: int
    scale: float
    roi: tuple[float, float]


def _resize(use: Use) -> Any:
    value = use.inputs[0]
    dtype = use.dtype()
    nearest = use.attrs.get("mode", "nearest") == "nearest"
    work = dtype if nearest or dtype.startswith("float") else "float32"
    if work != dtype:
        value = use.emit(relax.op.astype(value, work))
    for axis in _axes(use):
        places, weights, outside = _taps(axis, use.attrs)
        if nearest and np.array_equal(places[:, 0], np.arange(axis.before)) and not outside.any():
            continue
        value = _pass(use, value, axis, places, None if nearest else weights, outside)
    if work != dtype:
        value = use.emit(relax.op.astype(use.emit(relax.op.round(value)), dtype))
    return value


def _axes(use: Use) -> list[_Axis]:
    """The axes that change, with the scale by which coordinates are computed."""
    shape, rank = use.shape(), len(use.shape())
    chosen = [normalised(axis, rank) for axis in use.attrs.get("axes", range(rank))]
    roi, scales, sizes = (use.array(index) for index in (1, 2, 3))
    for index, given in ((1, roi), (2, scales), (3, sizes)):
        if use.has(index) and given is None:
            raise Refusal("its roi, scales and sizes must be constant")
    if scales is not None:
        factors = [float(scale) for scale in scales.reshape(-1)]
    elif sizes is not None:
        factors = [
            float(size) / shape[axis] for size, axis in zip(sizes.reshape(-1), chosen, strict=True)
        ]
        policy = use.attrs.get("keep_aspect_ratio_policy", "stretch")
        if policy != "stretch":
            one = min(factors) if policy == "not_larger" else max(factors)
            factors = [one] * len(factors)
    else:
        raise Refusal("neither scales nor sizes are given")
    region = roi.reshape(2, -1) if roi is not None and roi.size else np.array([[0.0], [1.0]])
    return [
        _Axis(
            axis,
            shape[axis],
            use.out.shape[axis],
            factor,
            tuple(float(v) for v in region[:, min(k, region.shape[1] - 1)]),  # type: ignore[arg-type]
        )
        for k, (axis, factor) in enumerate(zip(chosen, factors, strict=True))
        if factor != 1.0 or shape[axis] != use.out.shape[axis] or roi is not None
    ]


def _coordinates(axis: _Axis, mode: str) -> Array:
    """Where output positions lie in the input, as real numbers."""
    out = np.arange(axis.after, dtype=np.float64)
    none = np.zeros_like(out)
    before, after, scale = axis.before, axis.scale * axis.before, axis.scale
    begin, end = axis.roi
    match mode:
        case "align_corners":
            return out * (before - 1) / (after - 1) if after != 1 else none
        case "asymmetric":
            return out / scale
        case "tf_crop_and_resize":
            step = (end - begin) * (before - 1)
            inner = out * step / (after - 1) if after != 1 else none + step / 2
            return begin * (before - 1) + inner
        case "tf_half_pixel_for_nn":
            return (out + 0.5) / scale
        case "half_pixel" | "half_pixel_symmetric" | "pytorch_half_pixel":
            if mode == "pytorch_half_pixel" and after == 1:
                return none - 0.5
            offset = before / 2 * (1 - axis.after / after) if mode.endswith("symmetric") else 0.0
            return offset + (out + 0.5) / scale - 0.5
    raise Refusal(f"coordinate_transformation_mode '{mode}' is not supported")


def _taps(axis: _Axis, attrs: dict[str, Any]) -> tuple[Array, Array, Array]:
    """Places [after, taps] and weights of the inputs of each output, and which outputs lie outside
    of the region and take the extrapolation value."""
    mode = attrs.get("coordinate_transformation_mode", "half_pixel")
    at = _coordinates(axis, mode)
    outside = (at < 0) | (at > axis.before - 1) if mode == "tf_crop_and_resize" else at != at
    whole = at == np.floor(at)
    # A whole coordinate is the right end of its interval, as in ONNX's reference.
    left = np.where(whole, at - 1, np.floor(at)).astype(np.int64)
    ratio = np.where(whole, 1.0, at - np.floor(at))
    kind = attrs.get("mode", "nearest")
    if kind == "nearest":
        right = _prefers_right(ratio, attrs.get("nearest_mode", "round_prefer_floor"))
        places = (left + (right | whole))[:, None]
        weights = np.ones_like(places, np.float64)
    else:
        first, weights = _weights(ratio, axis.scale, kind, attrs)
        places = left[:, None] + first + np.arange(weights.shape[1])[None, :]
    if attrs.get("exclude_outside", 0):
        weights = np.where((places < 0) | (places >= axis.before), 0.0, weights)
        weights = weights / weights.sum(1, keepdims=True)
    return np.clip(places, 0, axis.before - 1), weights, outside


def _prefers_right(ratio: Array, mode: str) -> Array:
    match mode:
        case "round_prefer_floor":
            return np.asarray(ratio > 0.5)
        case "round_prefer_ceil":
            return np.asarray(ratio >= 0.5)
        case "floor":
            return np.zeros(ratio.shape, bool)
        case "ceil":
            return np.ones(ratio.shape, bool)
    raise Refusal(f"nearest_mode '{mode}' is not supported")


def _weights(ratio: Array, scale: float, kind: str, attrs: dict[str, Any]) -> tuple[int, Array]:
    """The first tap relative to the left neighbour, and weights [outputs, taps]."""
    if kind not in ("linear", "cubic"):
        raise Refusal(f"mode '{kind}' is not supported")
    reach = 1 if kind == "linear" else 2
    shrink = min(scale, 1.0) if attrs.get("antialias", 0) else 1.0
    first = int(np.floor(-reach / shrink)) + 1
    taps = np.arange(first, 2 - first)[None, :]
    distance = np.abs((taps - ratio[:, None]) * shrink)
    if kind == "linear":
        weights = np.clip(1 - distance, 0, 1)
    else:
        weights = _cubic(distance, attrs.get("cubic_coeff_a", -0.75))
    return first, weights / weights.sum(1, keepdims=True) if shrink != 1.0 else weights


def _cubic(x: Array, a: float) -> Array:
    near = (a + 2) * x**3 - (a + 3) * x**2 + 1
    far = a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))


def _pass(
    use: Use, value: Any, axis: _Axis, places: Array, weights: Array | None, outside: Array
) -> Any:
    dtype = str(value.ty.dtype)
    tables = [relax.const(places.astype(np.int32))]
    if weights is not None:
        tables.append(relax.const(weights.astype(dtype)))
    if outside.any():
        tables.append(relax.const(outside.astype(np.int32)))
    blank = immediate(use.attrs.get("extrapolation_value", 0.0), dtype)

    def compute(data: Any, place: Any, *rest: Any) -> Any:
        shape = [axis.after if k == axis.axis else e for k, e in enumerate(data.shape)]

        def element(*out: Any) -> Any:
            row = out[axis.axis]

            def source(tap: int) -> Any:
                at = place(row, tap).astype("int64")
                return data(*out[: axis.axis], at, *out[axis.axis + 1 :])

            if weights is None:
                total = source(0)
            else:
                total = rest[0](row, 0) * source(0)
                for tap in range(1, places.shape[1]):
                    total = total + rest[0](row, tap) * source(tap)
            return te.if_then_else(rest[-1](row) != 0, blank, total) if outside.any() else total

        return te.compute(shape, element)

    return use.te(compute, value, *tables)


RULES: dict[str, Rule] = {"Resize": _resize}
