"""Layer, RMS and instance normalisation, row-major: a row at a time, three passes in cache.

The variance is the mean of squared differences, as accurate as two passes can be.
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
from tenantdl.compile.kernels.emit import Emitter, Index, Value
from tenantdl.compile.kernels.epilogue import EMPTY, Program
from tenantdl.compile.kernels.registry import Template
from tenantdl.compile.kernels.rows import KERNELS_KEPT, RowProgram, each_vector, reduce_row, spread
from tenantdl.compile.operator import Kernel


@dataclass(frozen=True, slots=True)
class NormSpec:
    """Rows of `columns` elements. Scale and bias: one a column, or one a row of `channels` that
    repeat (0: a column). `centred`: the mean is subtracted (not so in RMSNormalization)."""

    rows: int
    columns: int
    channels: int
    epsilon: float
    has_bias: bool
    centred: bool
    lanes: int
    program: Program = EMPTY


@lru_cache(maxsize=KERNELS_KEPT)
def normalization(spec: NormSpec) -> Kernel:
    """The kernel: parameters x [rows][columns], scale, bias if there is one, operands, out."""
    digest = hashlib.sha256(repr(spec).encode()).hexdigest()[:12]
    with Emitter(f"normalization_{digest}", spec.lanes) as e:
        shape = (spec.rows, spec.columns)
        vector = (spec.channels or spec.columns,)
        x = e.param("x", shape)
        scale = e.param("scale", vector)
        bias = e.param("bias", vector) if spec.has_bias else None
        program = RowProgram(e, spec.program, shape)
        out = e.param("out", shape)
        with spread(e, spec.rows, spec.rows * spec.columns) as row:
            mean, inverse = _moments(e, spec, x, row)
            for column, lanes in each_vector(e, spec.columns):
                value = e.load(x, (row, column), lanes)
                if mean is not None:
                    value = value - e.splat(mean, lanes)
                value = (
                    value * e.splat(inverse, lanes) * _factor(e, spec, scale, row, column, lanes)
                )
                if bias is not None:
                    value = value + _factor(e, spec, bias, row, column, lanes)
                program.put(out, row, column, e.bind(value), lanes)
    return e.kernel()


def _moments(e: Emitter, spec: NormSpec, x: Value, row: Index) -> tuple[Value | None, Value]:
    """Mean (if it is subtracted), and one over the standard deviation, of a row."""

    def plain(column: Index, lanes: int) -> Value:
        return e.load(x, (row, column), lanes)

    share = T.float32(1 / spec.columns)
    mean = e.bind(reduce_row(e, spec.columns, plain, "sum") * share) if spec.centred else None

    def squared(column: Index, lanes: int) -> Value:
        value = plain(column, lanes)
        difference = e.bind(value if mean is None else value - e.splat(mean, lanes))
        return difference * difference

    variance = reduce_row(e, spec.columns, squared, "sum") * share
    return mean, e.bind(T.float32(1) / T.sqrt(variance + T.float32(spec.epsilon)))


def _factor(
    e: Emitter, spec: NormSpec, vector: Value, row: Index, column: Index, lanes: int
) -> Value:
    """Scale or bias at an element."""
    if spec.channels:
        return e.splat(vector[row % spec.channels], lanes)
    return e.load(vector, (column,), lanes)


def _layer_form(context: Context, node: Node) -> Form | None:
    x = context.type(node.inputs[0])
    axis = int(node.attrs.get("axis", -1)) % max(1, len(x.shape))
    named = [name for name in node.inputs[1:] if name]
    fits = (
        x.dtype == "float32"
        and x.size > 0
        and len([name for name in node.outputs if name]) == 1
        and int(node.attrs.get("stash_type", 1)) == 1
        and all(context.type(name).shape == x.shape[axis:] for name in named)
    )
    return "plain" if fits else None


def _layer(context: Context, group: Group) -> None:
    node = group.anchor
    shape = context.type(node.inputs[0]).shape
    axis = int(node.attrs.get("axis", -1)) % len(shape)
    columns = math.prod(shape[axis:])
    _emit(context, group, columns, 0)


def _instance_form(context: Context, node: Node) -> Form | None:
    x = context.type(node.inputs[0])
    return "plain" if x.dtype == "float32" and x.size and len(x.shape) > 2 else None


def _instance(context: Context, group: Group) -> None:
    shape = context.type(group.anchor.inputs[0]).shape
    _emit(context, group, math.prod(shape[2:]), shape[1])


def _emit(context: Context, group: Group, columns: int, channels: int) -> None:
    node = group.anchor
    size = context.type(node.inputs[0]).size
    sources = tuple(context.plain(name) for name in node.inputs if name)
    program, operands = bind_rows(context, group, columns)
    spec = NormSpec(
        size // columns,
        columns,
        channels,
        float(node.attrs.get("epsilon", 1e-5)),
        len(sources) > 2,
        node.op != "RMSNormalization",
        context.target.lanes,
        program,
    )
    args = (*sources, *operands, context.new_plain(group.output))
    context.emit(group.name, "normalization", normalization(spec), args, flops=8 * size)


TEMPLATES = {
    "LayerNormalization": Template(_layer_form, _layer, fuses=True),
    "RMSNormalization": Template(_layer_form, _layer, fuses=True),
    "InstanceNormalization": Template(_instance_form, _instance, fuses=True),
}
