"""Operators whose indices come with the data. Negative ones count from the end, as ONNX wants; what
lies outside is clamped, so that no index reads or writes other memory.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from tvm import relax, te, tirx

from tenantdl.compile.frontend.refusal import Refusal
from tenantdl.compile.generic.rules.use import Rule, Use, normalised


def _clamped(index: Any, extent: Any) -> Any:
    """An index of ONNX as a position in memory."""
    index = index.astype("int64")
    index = tirx.if_then_else(index < 0, index + extent, index)
    return tirx.max(tirx.min(index, extent - 1), 0)


def _gather(use: Use) -> Any:
    axis = normalised(use.attrs.get("axis", 0), len(use.shape()))
    rank = len(use.shape(1))

    def compute(data: Any, indices: Any) -> Any:
        def pick(*out: Any) -> Any:
            index = indices(*out[axis : axis + rank])
            at = _clamped(index, int(data.shape[axis]))
            return data(*out[:axis], at, *out[axis + rank :])

        return te.compute(use.out.shape, pick)

    return use.te(compute, *use.inputs)


def _gather_elements(use: Use) -> Any:
    axis = normalised(use.attrs.get("axis", 0), len(use.shape()))

    def compute(data: Any, indices: Any) -> Any:
        def pick(*out: Any) -> Any:
            at = _clamped(indices(*out), int(data.shape[axis]))
            return data(*out[:axis], at, *out[axis + 1 :])

        return te.compute(use.out.shape, pick)

    return use.te(compute, *use.inputs)


def _gather_nd(use: Use) -> Any:
    batch = use.attrs.get("batch_dims", 0)
    outer = len(use.shape(1)) - 1
    depth = use.shape(1)[-1]

    def compute(data: Any, indices: Any) -> Any:
        def pick(*out: Any) -> Any:
            at = [
                _clamped(indices(*out[:outer], k), int(data.shape[batch + k])) for k in range(depth)
            ]
            return data(*out[:batch], *at, *out[outer:])

        return te.compute(use.out.shape, pick)

    return use.te(compute, *use.inputs)


def safe_indices(use: Use, indices: Any, extent: Any) -> Any:
    """Indices within bounds as int64; `extent` is one number, or one a column of the last axis."""
    indices = use.emit(relax.op.astype(indices, "int64"))
    size = np.asarray(extent, np.int64)
    negative = use.emit(relax.op.less(indices, relax.const(0, "int64")))
    moved = use.emit(relax.op.add(indices, relax.const(size, "int64")))
    wrapped = use.emit(relax.op.where(negative, moved, indices))
    low = use.emit(relax.op.maximum(wrapped, relax.const(0, "int64")))
    return use.emit(relax.op.minimum(low, relax.const(size - 1, "int64")))


_REDUCTIONS = {"none": "update", "add": "add", "mul": "mul", "max": "max", "min": "min"}


def _reduction(use: Use) -> str:
    name = use.attrs.get("reduction", "none")
    if name not in _REDUCTIONS:
        raise Refusal(f"reduction '{name}' is not supported")
    return _REDUCTIONS[name]


def _scatter_elements(use: Use) -> Any:
    axis = normalised(use.attrs.get("axis", 0), len(use.shape()))
    indices = safe_indices(use, use.inputs[1], use.shape()[axis])
    return relax.op.scatter_elements(
        use.inputs[0], indices, use.inputs[2], axis=axis, reduction=_reduction(use)
    )


def _scatter_nd(use: Use) -> Any:
    depth = use.shape(1)[-1]
    indices = safe_indices(use, use.inputs[1], use.shape()[:depth])
    return relax.op.scatter_nd(use.inputs[0], indices, use.inputs[2], _reduction(use))


def _tensor_scatter(use: Use) -> Any:
    """A cache [batch, ..., length, ...] with `update` written from a position on, by batch."""
    axis = normalised(use.attrs.get("axis", -2), len(use.shape()))
    circular = use.attrs.get("mode", "linear") == "circular"
    length, count = use.shape()[axis], use.shape(1)[axis]

    def compute(past: Any, update: Any, *starts: Any) -> Any:
        def pick(*out: Any) -> Any:
            start = starts[0](out[0]).astype("int64") if starts else tirx.const(0, "int64")
            offset = out[axis] - start
            if circular:
                offset = tirx.floormod(offset, length)
            inside = tirx.all(offset >= 0, offset < count)
            at = tirx.max(tirx.min(offset, count - 1), 0)
            new = update(*out[:axis], at, *out[axis + 1 :])
            return tirx.if_then_else(inside, new, past(*out))

        return te.compute(use.out.shape, pick)

    return use.te(compute, *(value for value in use.inputs if value is not None))


def _one_hot(use: Use) -> Any:
    axis = normalised(use.attrs.get("axis", -1), len(use.out.shape))
    depth = use.out.shape[axis]

    def compute(indices: Any, values: Any) -> Any:
        def pick(*out: Any) -> Any:
            index = indices(*out[:axis], *out[axis + 1 :]).astype("int64")
            hit = tirx.any(index == out[axis], index + depth == out[axis])
            return tirx.if_then_else(hit, values(1), values(0))

        return te.compute(use.out.shape, pick)

    return use.te(compute, use.inputs[0], use.inputs[2])


def _top_k(use: Use) -> list[Any]:
    """By ranks: the position of an element is the number of those that go before it. Ties go by
    index, as ONNX wants. O(n²) comparisons, vectorised: fine for the few thousands of a head."""
    axis = normalised(use.attrs.get("axis", -1), len(use.shape()))
    largest = bool(use.attrs.get("largest", 1))
    shape, extent = use.shape(), use.shape()[axis]

    def before(data: Any, out: Any, other: Any) -> Any:
        mine = data(*out)
        theirs = data(*out[:axis], other, *out[axis + 1 :])
        better = theirs > mine if largest else theirs < mine
        return tirx.any(better, tirx.all(theirs == mine, other < out[axis]))

    def rank(data: Any) -> Any:
        other = te.reduce_axis((0, extent), "other")
        return te.compute(
            shape,
            lambda *out: te.sum(before(data, out, other).astype("int32"), axis=[other]),
        )

    def order(ranks: Any) -> Any:
        source = te.reduce_axis((0, extent), "source")
        return te.compute(
            use.out.shape,
            lambda *out: te.max(
                tirx.Select(
                    ranks(*out[:axis], source, *out[axis + 1 :]) == out[axis].astype("int32"),
                    source.astype("int64"),
                    tirx.const(0, "int64"),
                ),
                axis=[source],
            ),
        )

    def pick(data: Any, indices: Any) -> Any:
        return te.compute(
            use.out.shape, lambda *out: data(*out[:axis], indices(*out), *out[axis + 1 :])
        )

    indices = use.te(order, use.te(rank, use.inputs[0]))
    return [use.te(pick, use.inputs[0], indices), indices]


RULES: dict[str, Rule] = {
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "GatherND": _gather_nd,
    "OneHot": _one_hot,
    "ScatterElements": _scatter_elements,
    "ScatterND": _scatter_nd,
    "TensorScatter": _tensor_scatter,
    "TopK": _top_k,
}
