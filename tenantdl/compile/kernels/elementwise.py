"""Elementwise groups that no anchor took: one pass over memory, packed or row-major.

Packed when an input is packed already, else row-major. Broadcasting beyond one number, one value a
channel (or last dimension), or a gate of an image is left to the generic schedule.
"""

from __future__ import annotations

import hashlib

from tenantdl.compile.context import Context, Form, Group
from tenantdl.compile.fusion import bind_program, make_tail
from tenantdl.compile.graph import Node
from tenantdl.compile.kernels.conv_spec import operand_loader, operand_shape
from tenantdl.compile.kernels.emit import Emitter, Index, Value
from tenantdl.compile.kernels.epilogue import Program
from tenantdl.compile.kernels.layout import Packed
from tenantdl.compile.kernels.registry import Template
from tenantdl.compile.kernels.vmath import BINARY, UNARY, VectorMath
from tenantdl.compile.operator import Kernel

CHUNK_BYTES = 16 * 1024  # a parallel task of the row-major form


def _running(context: Context, node: Node) -> str | None:
    """The input that the rest is seen relative to: a produced one of the output's shape, packed
    first."""
    shape = context.type(node.outputs[0]).shape
    names = [
        name
        for name in node.inputs
        if name and context.array(name) is None and context.type(name).shape == shape
    ]
    packed = [name for name in names if context.forms.get(name) == "packed"]
    return next(iter(packed or names), None)


def _form(context: Context, node: Node) -> Form | None:
    running = _running(context, node)
    if running is None or context.type(node.outputs[0]).size == 0:
        return None
    form: Form = context.forms.get(running, "plain")
    return form if make_tail(context, node, running, form) is not None else None


def _lower(context: Context, group: Group) -> None:
    node = group.anchor
    form = context.forms[group.output]
    running = _running(context, node)
    assert running is not None
    first = make_tail(context, node, running, form)
    assert first is not None
    whole = Group(node, group.output, [first, *group.tails], group.covered)
    program, operands = bind_program(context, whole, form)
    flops = len(program.steps) * context.type(group.output).size
    if form == "packed":
        source, layout = context.packed(running)
        target, out = context.new_packed(group.output)
        kernel = packed_kernel(layout, out, program)
    else:
        source = context.plain(running)
        target = context.new_plain(group.output)
        shape = context.type(group.output).shape
        kernel = plain_kernel(shape, program, context.target.lanes)
    context.emit(group.name, "elementwise", kernel, (source, *operands, target), flops=flops)


def packed_kernel(data: Packed, out: Packed, program: Program) -> Kernel:
    """Parameters: packed data, operands of the program, packed output."""
    digest = hashlib.sha256(repr((data, out, program)).encode()).hexdigest()[:12]
    with Emitter(f"elementwise_{digest}", out.lanes) as e:
        math = VectorMath(e)
        source = e.param("data", data.shape)
        operands = [
            e.param(f"operand{i}", operand_shape(operand.layout, operand.access, out))
            for i, operand in enumerate(program.parameters)
        ]
        target = e.param("out", out.shape)
        rows = out.blocks * out.height
        with e.parallel(out.batch * rows) as task:
            n, block, y = task // rows, task % rows // out.height, task % out.height
            with e.serial(out.width) as x:
                value = e.bind(e.load(source, data.index(n, block, y, x)))
                load = operand_loader(e, program, operands, n, block, y, x)
                e.store(target, out.index(n, block, y, x), program.apply(math, value, load))
    return e.kernel()


def plain_kernel(shape: tuple[int, ...], program: Program, lanes: int) -> Kernel:
    """Parameters: row-major data of `shape`, operands (channel: the last dimension), output."""
    digest = hashlib.sha256(repr((shape, program, lanes)).encode()).hexdigest()[:12]
    size = 1
    for extent in shape:
        size *= extent
    by_channel = any(operand.access == "channel" for operand in program.parameters)
    inner = shape[-1] if by_channel and shape else _chunk(size, lanes)
    whole, rest = divmod(size, inner)
    with Emitter(f"elementwise_{digest}", lanes) as e:
        source = e.param("data", (size,))
        operands = [
            e.param(f"operand{i}", (inner,) if operand.access == "channel" else (size,))
            for i, operand in enumerate(program.parameters)
        ]
        target = e.param("out", (size,))

        def run(start: Index, length: int) -> None:
            vectors, rest = divmod(length, lanes)
            for width, first, count in ((lanes, 0, vectors), (1, vectors * lanes, rest)):
                if not count:
                    continue
                math = VectorMath(e, width)
                with e.serial(count) as i:
                    at = first + i * width
                    value = e.bind(e.load(source, (start + at,), width))

                    def load(k: int, at: Index = at, width: int = width) -> Value:
                        channel = program.parameters[k].access == "channel"
                        place = at if channel else start + at
                        return e.load(operands[k], (place,), width)

                    e.store(target, (start + at,), program.apply(math, value, load), width)

        if whole:
            with e.parallel(whole) as task:
                run(task * inner, inner)
        if rest:
            run(whole * inner, rest)
    return e.kernel()


def _chunk(size: int, lanes: int) -> int:
    """Elements of a parallel task: whole vectors, at most a few pages."""
    chunk = CHUNK_BYTES // 4
    if size >= 2 * chunk:
        return chunk
    return size // lanes * lanes if size >= lanes else size


_TEMPLATE = Template(_form, _lower, fuses=True)
TEMPLATES = {op: _TEMPLATE for op in (*UNARY, *BINARY)}
