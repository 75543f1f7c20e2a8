"""Operators that move elements. Indices follow ONNX (negative ones count from the end); what lies
outside is clamped, so that no index reads or writes other memory.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from tvm import relax, te, tirx

from tenantdl.compile.frontend.refusal import Refusal
from tenantdl.compile.generic.rules.use import Rule, Use, dtype_of, immediate, normalised


def _reshape(use: Use) -> Any:
    return relax.op.reshape(use.inputs[0], use.out.shape)


def _expand(use: Use) -> Any:
    return relax.op.broadcast_to(use.inputs[0], use.out.shape)


def _identity(use: Use) -> Any:
    return use.inputs[0]


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


def _reverse_sequence(use: Use) -> Any:
    batch_axis, time_axis = use.attrs.get("batch_axis", 1), use.attrs.get("time_axis", 0)

    def compute(data: Any, lengths: Any) -> Any:
        def pick(*out: Any) -> Any:
            length = lengths(out[batch_axis]).astype("int64")
            time = out[time_axis]
            length = tirx.min(length, int(data.shape[time_axis]))
            at = list(out)
            at[time_axis] = tirx.if_then_else(time < length, length - 1 - time, time)
            return data(*at)

        return te.compute(use.out.shape, pick)

    return use.te(compute, *use.inputs)


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


def _trilu(use: Use) -> Any:
    upper = bool(use.attrs.get("upper", 1))
    offset = use.array(1)
    if use.has(1) and offset is None:
        raise Refusal("its diagonal must be constant")
    k = int(offset.reshape(-1)[0]) if offset is not None else 0

    def compute(data: Any) -> Any:
        def pick(*out: Any) -> Any:
            row, column = out[-2], out[-1]
            keep = column - row >= k if upper else column - row <= k
            return tirx.if_then_else(keep, data(*out), immediate(0, dtype_of(data)))

        return te.compute(data.shape, pick)

    return use.te(compute, use.inputs[0])


def _concat(use: Use) -> Any:
    axis = normalised(use.attrs["axis"], len(use.out.shape))
    return relax.op.concat([value for value in use.inputs if value is not None], axis)


def _transpose(use: Use) -> Any:
    return relax.op.permute_dims(use.inputs[0], use.attrs.get("perm"))


def _split(use: Use) -> list[Any]:
    axis = normalised(use.attrs.get("axis", 0), len(use.shape()))
    source = use.inputs[0]
    results: list[Any] = []
    begin = 0
    parts = use.array(1)
    sizes = _part_sizes(use, axis) if parts is None else [int(part) for part in parts]
    for kind, size in zip(use.kinds, sizes, strict=False):
        part = None
        if kind is not None:
            part = relax.op.strided_slice(source, [axis], [begin], [begin + size])
        results.append(part)
        begin += size
    return results


def _part_sizes(use: Use, axis: int) -> list[int]:
    """Equal parts; a smaller one last."""
    extent = use.shape()[axis]
    size = -(-extent // len(use.kinds))
    return [min(size, extent - size * index) for index in range(len(use.kinds))]


def _depth_to_space(use: Use) -> Any:
    n, c, h, w = use.shape()
    block = use.attrs["blocksize"]
    if use.attrs.get("mode", "DCR") == "DCR":
        split, order = [n, block, block, c // block**2, h, w], [0, 3, 4, 1, 5, 2]
    else:
        split, order = [n, c // block**2, block, block, h, w], [0, 1, 4, 2, 5, 3]
    parts = use.emit(relax.op.reshape(use.inputs[0], split))
    return relax.op.reshape(use.emit(relax.op.permute_dims(parts, order)), use.out.shape)


def _space_to_depth(use: Use) -> Any:
    n, c, h, w = use.shape()
    block = use.attrs["blocksize"]
    parts = use.emit(relax.op.reshape(use.inputs[0], [n, c, h // block, block, w // block, block]))
    order = [0, 3, 5, 1, 2, 4] if use.attrs.get("mode", "DCR") == "DCR" else [0, 1, 3, 5, 2, 4]
    return relax.op.reshape(use.emit(relax.op.permute_dims(parts, order)), use.out.shape)


def _tile(use: Use) -> Any:
    shape = use.shape()

    def compute(data: Any) -> Any:
        return te.compute(
            use.out.shape,
            lambda *out: data(*(tirx.indexmod(i, e) for i, e in zip(out, shape, strict=True))),
        )

    return use.te(compute, use.inputs[0])


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
    **dict.fromkeys(("Reshape", "Squeeze", "Unsqueeze", "Flatten"), _reshape),
    "Concat": _concat,
    "DepthToSpace": _depth_to_space,
    "Expand": _expand,
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "GatherND": _gather_nd,
    "Identity": _identity,
    "OneHot": _one_hot,
    "ReverseSequence": _reverse_sequence,
    "ScatterElements": _scatter_elements,
    "ScatterND": _scatter_nd,
    "SpaceToDepth": _space_to_depth,
    "Split": _split,
    "TensorScatter": _tensor_scatter,
    "Tile": _tile,
    "TopK": _top_k,
    "Transpose": _transpose,
    "Trilu": _trilu,
}
