"""Softmax and LogSoftmax, row-major: along the last dimension, or along any other across vectors.

The highest element is subtracted first, so that nothing overflows.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from tvm.script.ir_builder import tirx as T

from tenantdl.compile.context import Context, Form, Group
from tenantdl.compile.graph import Node
from tenantdl.compile.kernels.emit import Emitter, Index, Register, Value
from tenantdl.compile.kernels.registry import Template
from tenantdl.compile.kernels.rows import KERNELS_KEPT, each_vector, reduce_row, spread
from tenantdl.compile.kernels.vmath import VectorMath
from tenantdl.compile.operator import Kernel


@dataclass(frozen=True, slots=True)
class SoftmaxSpec:
    """[outer][extent][inner], normalised along `extent`; `log`: its logarithm."""

    outer: int
    extent: int
    inner: int
    log: bool
    lanes: int


@lru_cache(maxsize=KERNELS_KEPT)
def softmax(spec: SoftmaxSpec) -> Kernel:
    """The kernel: parameters x, out."""
    digest = hashlib.sha256(repr(spec).encode()).hexdigest()[:12]
    with Emitter(f"softmax_{digest}", spec.lanes) as e:
        (_along if spec.inner == 1 else _across)(e, spec)
    return e.kernel()


def _along(e: Emitter, spec: SoftmaxSpec) -> None:
    """Rows of consecutive elements, one after another."""
    shape = (spec.outer, spec.extent)
    x, out = e.param("x", shape), e.param("out", shape)
    with spread(e, spec.outer, 2 * spec.outer * spec.extent) as row:

        def plain(column: Index, lanes: int) -> Value:
            return e.load(x, (row, column), lanes)

        highest = e.bind(reduce_row(e, spec.extent, plain, "max"))

        def power(column: Index, lanes: int) -> Value:
            difference = plain(column, lanes) - e.splat(highest, lanes)
            value = VectorMath(e, lanes).exp(difference)
            if not spec.log:
                e.store(out, (row, column), value, lanes)
            return value

        total = reduce_row(e, spec.extent, power, "sum")
        if spec.log:
            shift = e.bind(highest + T.log(total))
            for column, lanes in each_vector(e, spec.extent):
                value = plain(column, lanes) - e.splat(shift, lanes)
                e.store(out, (row, column), value, lanes)
            return
        inverse = e.bind(T.float32(1) / total)
        for column, lanes in each_vector(e, spec.extent):
            at = (row, column)
            e.store(out, at, e.load(out, at, lanes) * e.splat(inverse, lanes), lanes)


def _across(e: Emitter, spec: SoftmaxSpec) -> None:
    """Elements `inner` apart: every lane is a row of its own."""
    shape = (spec.outer, spec.extent, spec.inner)
    x, out = e.param("x", shape), e.param("out", shape)
    with spread(e, spec.outer, 2 * math.prod(shape)) as outer:
        for column, lanes in each_vector(e, spec.inner):
            _column(e, spec, x, out, outer, column, lanes)


def _column(
    e: Emitter, spec: SoftmaxSpec, x: Any, out: Any, outer: Index, column: Index, lanes: int
) -> None:
    highest, total = Register(lanes), Register(lanes)
    highest.set(e.load(x, (outer, 0, column), lanes))
    with e.serial(spec.extent) as i:
        highest.set(T.max(highest.get(), e.load(x, (outer, i, column), lanes)))
    total.set(e.splat(0.0, lanes))
    with e.serial(spec.extent) as i:
        at = (outer, i, column)
        value = VectorMath(e, lanes).exp(e.load(x, at, lanes) - highest.get())
        if not spec.log:
            e.store(out, at, value, lanes)
        total.set(total.get() + value)
    last = T.log(total.get()) + highest.get() if spec.log else e.splat(1.0, lanes) / total.get()
    last = e.bind(last)
    with e.serial(spec.extent) as i:
        at = (outer, i, column)
        if spec.log:
            e.store(out, at, e.load(x, at, lanes) - last, lanes)
        else:
            e.store(out, at, e.load(out, at, lanes) * last, lanes)


def _form(context: Context, node: Node) -> Form | None:
    x = context.type(node.inputs[0])
    return "plain" if x.dtype == "float32" and x.size and x.shape else None


def _lower(context: Context, group: Group) -> None:
    node = group.anchor
    shape = context.type(node.inputs[0]).shape
    axis = int(node.attrs.get("axis", -1)) % len(shape)
    spec = SoftmaxSpec(
        math.prod(shape[:axis]),
        shape[axis],
        math.prod(shape[axis + 1 :]),
        node.op == "LogSoftmax",
        context.target.lanes,
    )
    args = (context.plain(node.inputs[0]), context.new_plain(group.output))
    flops = 30 * context.type(node.inputs[0]).size
    context.emit(group.name, "softmax", softmax(spec), args, flops=flops)


TEMPLATES = {"Softmax": Template(_form, _lower), "LogSoftmax": Template(_form, _lower)}
