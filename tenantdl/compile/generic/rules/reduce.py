"""Reductions, with the identities that ONNX wants: the maximum of nothing but -inf is -inf, where
TVM's own start at the lowest finite number."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from tvm import relax, te, tirx

from tenantdl.compile.frontend.refusal import Refusal
from tenantdl.compile.generic.rules.use import (
    Rule,
    Use,
    dtype_of,
    elementwise,
    immediate,
    normalised,
)

Combine = Callable[[Any, Any], Any]


def lowest(dtype: str) -> float:
    """The least value of a dtype."""
    if dtype == "bool":
        return 0
    return -math.inf if dtype.startswith("float") else int(np.iinfo(dtype).min)


def highest(dtype: str) -> float:
    """The greatest value of a dtype."""
    if dtype == "bool":
        return 1
    return math.inf if dtype.startswith("float") else int(np.iinfo(dtype).max)


def reducer(name: str, dtype: str) -> Any:
    """TE's reduction by `name`: sum, prod, max, min."""
    combine: Combine
    match name:
        case "sum":
            combine, start = (lambda a, b: a + b), 0.0
        case "prod":
            combine, start = (lambda a, b: a * b), 1.0
        case "max":
            combine, start = (lambda a, b: tirx.max(a, b)), lowest(dtype)
        case _:
            combine, start = (lambda a, b: tirx.min(a, b)), highest(dtype)
    if dtype == "bool":
        combine = (lambda a, b: tirx.any(a, b)) if name == "max" else (lambda a, b: tirx.all(a, b))
    return te.comm_reducer(combine, lambda kind: immediate(start, str(kind)), name=name)


def reduce_over(use: Use, value: Any, axes: tuple[int, ...], name: str, keepdims: bool) -> Any:
    """`value` reduced over `axes` (counted from the front)."""

    def compute(data: Any) -> Any:
        rank = len(data.shape)
        over = {axis: te.reduce_axis((0, data.shape[axis]), f"r{axis}") for axis in axes}
        kept = [axis for axis in range(rank) if axis not in over]
        shape = [1 if a in over else data.shape[a] for a in range(rank) if keepdims or a in kept]

        def element(*out: Any) -> Any:
            places = range(rank) if keepdims else kept
            free = dict(zip(places, out, strict=True))
            index = [over.get(axis, free.get(axis)) for axis in range(rank)]
            return reducer(name, dtype_of(data))(data(*index), axis=list(over.values()))

        return te.compute(shape, element)

    return use.te(compute, value)


def _axes(use: Use) -> tuple[int, ...]:
    rank = len(use.shape())
    given = use.array(1)
    if use.has(1) and given is None:
        raise Refusal("its axes must be constant")
    if given is None or not given.size:
        return () if use.attrs.get("noop_with_empty_axes", 0) else tuple(range(rank))
    return tuple(sorted({normalised(int(axis), rank) for axis in given.reshape(-1)}))


_BEFORE: dict[str, Callable[[Any], Any]] = {
    "ReduceL1": relax.op.abs,
    "ReduceL2": lambda x: relax.op.multiply(x, x),
    "ReduceSumSquare": lambda x: relax.op.multiply(x, x),
}
_BY = {"ReduceMax": "max", "ReduceMin": "min", "ReduceProd": "prod"}
_AFTER: dict[str, Callable[[Any], Any]] = {"ReduceL2": relax.op.sqrt, "ReduceLogSum": relax.op.log}


def _reduce(use: Use) -> Any:
    op, axes = use.node.op, _axes(use)
    value = use.emit(_BEFORE[op](use.inputs[0])) if op in _BEFORE else use.inputs[0]
    keep = bool(use.attrs.get("keepdims", 1))
    if axes:
        value = reduce_over(use, value, axes, _BY.get(op, "sum"), keep)
    if op == "ReduceMean":
        count = math.prod(use.shape()[axis] for axis in axes)
        if use.dtype().startswith("float"):
            return relax.op.multiply(value, use.const(1.0 / count))
        return use.te(elementwise(lambda x: tirx.truncdiv(x, immediate(count, dtype_of(x)))), value)
    return _AFTER[op](value) if op in _AFTER else value


def _log_sum_exp(use: Use) -> Any:
    axes = _axes(use)
    keep = bool(use.attrs.get("keepdims", 1))
    if not axes:
        return use.inputs[0]
    top = reduce_over(use, use.inputs[0], axes, "max", True)
    # exp(-inf - -inf) would be nan: an all -inf slice is shifted by nothing.
    infinite = use.emit(relax.op.isinf(top))
    shift = use.emit(relax.op.where(infinite, use.const(0.0), top))
    terms = use.emit(relax.op.exp(use.emit(relax.op.subtract(use.inputs[0], shift))))
    total = use.emit(relax.op.log(reduce_over(use, terms, axes, "sum", True)))
    return (
        relax.op.reshape(use.emit(relax.op.add(total, shift)), use.out.shape)
        if not keep
        else (relax.op.add(total, shift))
    )


def _arg(use: Use) -> Any:
    """The first (or last) position of the extreme, by a reduction over (value, position)."""
    axis = normalised(use.attrs.get("axis", 0), len(use.shape()))
    greatest = use.node.op == "ArgMax"
    last = bool(use.attrs.get("select_last_index", 0))
    extent = use.shape()[axis]
    keep = bool(use.attrs.get("keepdims", 1))

    def better(a: Any, b: Any) -> Any:
        ahead = a[1] > b[1] if greatest else a[1] < b[1]
        earlier = a[0] > b[0] if last else a[0] < b[0]
        return tirx.any(ahead, tirx.all(a[1] == b[1], earlier))

    def combine(a: Any, b: Any) -> Any:
        wins = better(a, b)
        return tirx.Select(wins, a[0], b[0]), tirx.Select(wins, a[1], b[1])

    def start(position: Any, value: Any) -> Any:
        edge = lowest(str(value)) if greatest else highest(str(value))
        first = immediate(-1 if last else extent, str(position))
        return first, immediate(edge, str(value))

    extreme = te.comm_reducer(combine, start, name="extreme")

    def compute(data: Any) -> Any:
        along = te.reduce_axis((0, extent), "along")

        def element(*out: Any) -> Any:
            rest = (*out[:axis], *out[axis + 1 :]) if keep else out
            index = (*rest[:axis], along, *rest[axis:])
            return extreme((along.astype("int64"), data(*index)), axis=[along])

        return te.compute(use.out.shape, element)[0]

    return use.te(compute, use.inputs[0])


def _cumulative(use: Use) -> Any:
    """A prefix sum or product. Each element reduces over those before it: O(n²), but parallel and
    without an order that vectors could not follow."""
    position = use.array(1)
    if position is None:
        raise Refusal("its axis must be constant")
    axis = normalised(int(position.reshape(-1)[0]), len(use.shape()))
    exclusive, backwards = (bool(use.attrs.get(key, 0)) for key in ("exclusive", "reverse"))
    name = "prod" if use.node.op == "CumProd" else "sum"
    extent = use.shape()[axis]

    def compute(data: Any) -> Any:
        other = te.reduce_axis((0, extent), "other")
        neutral = immediate(1 if name == "prod" else 0, dtype_of(data))

        def element(*out: Any) -> Any:
            mine = out[axis]
            ahead = other > mine if backwards else other < mine
            taken = ahead if exclusive else tirx.any(ahead, other == mine)
            value = data(*out[:axis], other, *out[axis + 1 :])
            return reducer(name, dtype_of(data))(tirx.Select(taken, value, neutral), axis=[other])

        return te.compute(data.shape, element)

    return use.te(compute, use.inputs[0])


def _hardmax(use: Use) -> Any:
    axis = normalised(use.attrs.get("axis", -1), len(use.shape()))
    extent = use.shape()[axis]

    def first(data: Any, top: Any) -> Any:
        along = te.reduce_axis((0, extent), "along")

        def element(*out: Any) -> Any:
            hit = data(*out[:axis], along, *out[axis + 1 :]) == top(*out)
            place = tirx.Select(hit, along.astype("int64"), immediate(extent, "int64"))
            return te.min(place, axis=[along])

        return te.compute(top.shape, element)

    def spread(place: Any) -> Any:
        def element(*out: Any) -> Any:
            hit = place(*out[:axis], 0, *out[axis + 1 :]) == out[axis].astype("int64")
            return hit.astype(use.dtype())

        return te.compute(use.out.shape, element)

    top = reduce_over(use, use.inputs[0], (axis,), "max", True)
    return use.te(spread, use.te(first, use.inputs[0], top))


RULES: dict[str, Rule] = {
    **dict.fromkeys(("ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceMax", "ReduceMean"), _reduce),
    **dict.fromkeys(("ReduceMin", "ReduceProd", "ReduceSum", "ReduceSumSquare"), _reduce),
    **dict.fromkeys(("ArgMax", "ArgMin"), _arg),
    **dict.fromkeys(("CumSum", "CumProd"), _cumulative),
    "Hardmax": _hardmax,
    "ReduceLogSumExp": _log_sum_exp,
}
