"""Reductions, row-major: along the last dimensions within vectors, along others across them.

Only axes that follow each other (dimensions of 1 aside); other cases go to the generic schedule.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from tvm.script.ir_builder import tirx as T

from tenantdl.compile.context import Context, Form, Group
from tenantdl.compile.graph import Node
from tenantdl.compile.kernels.emit import Emitter, Index, Register, Value
from tenantdl.compile.kernels.registry import Template
from tenantdl.compile.kernels.rows import KERNELS_KEPT, reduce_row, spread
from tenantdl.compile.kernels.runs import pieces
from tenantdl.compile.kernels.vmath import VectorMath
from tenantdl.compile.operator import Kernel


@dataclass(frozen=True, slots=True)
class _Kind:
    """before(x) of every element, combined ("sum" or "max"), then after(result, count)."""

    combine: str
    before: Callable[[VectorMath, Value], Value]
    after: Callable[[VectorMath, Value, int], Value]


_KINDS = {
    "ReduceSum": _Kind("sum", lambda m, x: x, lambda m, x, n: x),
    "ReduceMean": _Kind("sum", lambda m, x: x, lambda m, x, n: x * m.const(1 / n)),
    "ReduceMax": _Kind("max", lambda m, x: x, lambda m, x, n: x),
    "ReduceMin": _Kind("max", lambda m, x: m.const(0.0) - x, lambda m, x, n: m.const(0.0) - x),
    "ReduceSumSquare": _Kind("sum", lambda m, x: x * x, lambda m, x, n: x),
    "ReduceL2": _Kind("sum", lambda m, x: x * x, lambda m, x, n: T.sqrt(x)),
}


@dataclass(frozen=True, slots=True)
class ReduceSpec:
    """[outer][extent][inner] → [outer][inner]."""

    op: str
    outer: int
    extent: int
    inner: int
    lanes: int


@lru_cache(maxsize=KERNELS_KEPT)
def reduction(spec: ReduceSpec) -> Kernel:
    """The kernel: parameters x, out."""
    digest = hashlib.sha256(repr(spec).encode()).hexdigest()[:12]
    with Emitter(f"reduce_{digest}", spec.lanes) as e:
        (_along if spec.inner == 1 else _across)(e, spec, _KINDS[spec.op])
    return e.kernel()


def _along(e: Emitter, spec: ReduceSpec, kind: _Kind) -> None:
    """Consecutive elements to one."""
    x = e.param("x", (spec.outer, spec.extent))
    out = e.param("out", (spec.outer,))
    with spread(e, spec.outer, spec.outer * spec.extent) as row:

        def load(column: Index, lanes: int) -> Value:
            loaded = e.bind(e.load(x, (row, column), lanes))
            return e.bind(kind.before(VectorMath(e, lanes), loaded))

        total = reduce_row(e, spec.extent, load, kind.combine)
        T.buffer_store(out, kind.after(VectorMath(e, 1), total, spec.extent), [row])


def _across(e: Emitter, spec: ReduceSpec, kind: _Kind) -> None:
    """Rows of `inner` elements to one row: every lane has its own result."""
    x = e.param("x", (spec.outer, spec.extent, spec.inner))
    out = e.param("out", (spec.outer, spec.inner))
    blocks = -(-spec.inner // e.lanes)
    with spread(e, spec.outer * blocks, spec.outer * spec.extent * spec.inner) as task:
        row, column = task // blocks, task % blocks * e.lanes
        whole, rest = divmod(spec.inner, e.lanes)
        if not rest:
            _column(e, spec, kind, x, out, (row, column), e.lanes)
            return
        with e.branches(task % blocks < whole) as (full, partial):
            with full:
                _column(e, spec, kind, x, out, (row, column), e.lanes)
            with partial:
                for start, lanes in pieces(rest, e.lanes):
                    _column(e, spec, kind, x, out, (row, column + start), lanes)


def _column(
    e: Emitter,
    spec: ReduceSpec,
    kind: _Kind,
    x: Any,
    out: Any,
    at: tuple[Index, Index],
    lanes: int,
) -> None:
    """One vector of results."""
    functions = VectorMath(e, lanes)
    row, column = at
    total = Register(lanes)
    total.set(kind.before(functions, e.bind(e.load(x, (row, 0, column), lanes))))
    with e.serial(spec.extent - 1) as i:
        value = kind.before(functions, e.bind(e.load(x, (row, i + 1, column), lanes)))
        total.set(T.max(total.get(), value) if kind.combine == "max" else total.get() + value)
    e.store(out, at, kind.after(functions, total.get(), spec.extent), lanes)


def _dimensions(context: Context, node: Node) -> tuple[int, int, int] | None:
    """(outer, extent, inner) if the reduced axes follow each other."""
    shape = context.type(node.inputs[0]).shape
    named = len(node.inputs) > 1 and bool(node.inputs[1])
    array = context.array(node.inputs[1]) if named else None
    if named and array is None:
        return None
    axes = {int(axis) % len(shape) for axis in array.reshape(-1)} if array is not None else set()
    if not axes:
        if node.attrs.get("noop_with_empty_axes", 0):
            return None
        axes = set(range(len(shape)))
    long = [axis for axis in range(len(shape)) if shape[axis] > 1]
    reduced = [axis for axis in long if axis in axes]
    if not reduced:
        return math.prod(shape), 1, 1
    if [axis for axis in long if reduced[0] <= axis <= reduced[-1]] != reduced:
        return None
    first, last = reduced[0], reduced[-1] + 1
    return math.prod(shape[:first]), math.prod(shape[first:last]), math.prod(shape[last:])


def _form(context: Context, node: Node) -> Form | None:
    x = context.type(node.inputs[0])
    fits = x.dtype == "float32" and x.size > 0 and x.shape and context.array(node.inputs[0]) is None
    return "plain" if fits and _dimensions(context, node) is not None else None


def _lower(context: Context, group: Group) -> None:
    node = group.anchor
    found = _dimensions(context, node)
    assert found is not None
    spec = ReduceSpec(node.op, *found, context.target.lanes)
    args = (context.plain(node.inputs[0]), context.new_plain(group.output))
    flops = context.type(node.inputs[0]).size
    context.emit(group.name, "reduce", reduction(spec), args, flops=flops)


TEMPLATES = {op: Template(_form, _lower) for op in _KINDS}
