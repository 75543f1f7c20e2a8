"""Gather: rows of a table by index, such as embeddings; elementwise nodes fuse behind it.

Indices may be negative (from the end, as ONNX has it). What lies outside the table is clamped to
its ends: a request must never read foreign memory.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from functools import lru_cache

from tvm.script.ir_builder import tirx as T

from tenantdl.compile.context import Context, Form, Group
from tenantdl.compile.fusion import bind_rows
from tenantdl.compile.graph import Node
from tenantdl.compile.kernels.emit import Emitter, Value
from tenantdl.compile.kernels.epilogue import EMPTY, Program
from tenantdl.compile.kernels.registry import Template
from tenantdl.compile.kernels.rows import KERNELS_KEPT, RowProgram, each_vector, spread
from tenantdl.compile.operator import Kernel


@dataclass(frozen=True, slots=True)
class GatherSpec:
    """Rows of `inner` elements out of [outer][extent][inner], `count` indices of type `kind`."""

    outer: int
    extent: int
    inner: int
    count: int
    kind: str
    lanes: int
    program: Program = EMPTY


@lru_cache(maxsize=KERNELS_KEPT)
def gather(spec: GatherSpec) -> Kernel:
    """The kernel: parameters table [outer][extent·inner], indices, operands, out [rows][inner]
    with rows = outer · count. Rows of one element are written as one row of `count`."""
    digest = hashlib.sha256(repr(spec).encode()).hexdigest()[:12]
    with Emitter(f"gather_{digest}", spec.lanes) as e:
        table = e.param("table", (spec.outer, spec.extent * spec.inner))
        indices = e.param("indices", (spec.count,), spec.kind)
        shape = (spec.outer * spec.count, spec.inner)
        program = RowProgram(e, spec.program, shape)
        out = e.param("out", shape)
        with spread(e, shape[0], math.prod(shape)) as row:
            first = e.bind(_clamped(spec, indices[row % spec.count]) * spec.inner)
            for column, lanes in each_vector(e, spec.inner):
                value = e.load(table, (row // spec.count, first + column), lanes)
                program.put(out, row, column, e.bind(value), lanes)
    return e.kernel()


def _clamped(spec: GatherSpec, index: Value) -> Value:
    number = T.cast(index, "int64")
    number = T.Select(number < 0, number + spec.extent, number)
    number = T.min(T.max(number, T.int64(0)), T.int64(spec.extent - 1))
    return T.cast(number, "int32") if spec.extent * spec.inner < 2**31 else number


def _form(context: Context, node: Node) -> Form | None:
    table, indices = (context.type(name) for name in node.inputs)
    fits = (
        table.dtype == "float32"
        and indices.dtype in ("int64", "int32")
        and context.type(node.outputs[0]).size > 0
    )
    return "plain" if fits else None


def _lower(context: Context, group: Group) -> None:
    node = group.anchor
    shape = context.type(node.inputs[0]).shape
    axis = int(node.attrs.get("axis", 0)) % len(shape)
    indices = context.type(node.inputs[1])
    sources = (context.plain(node.inputs[0]), context.plain(node.inputs[1]))
    inner = math.prod(shape[axis + 1 :])
    program, operands = bind_rows(context, group, inner)
    spec = GatherSpec(
        math.prod(shape[:axis]),
        shape[axis],
        inner,
        indices.size,
        indices.dtype,
        context.target.lanes,
        program,
    )
    args = (*sources, *operands, context.new_plain(group.output))
    context.emit(group.name, "gather", gather(spec), args)


TEMPLATES = {"Gather": Template(_form, _lower, fuses=True)}
