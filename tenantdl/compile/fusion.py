"""Cut the graph into groups: an anchor and the elementwise nodes that run in its epilogue.

A node joins the group before it when it is the only reader of that group's value, keeps its shape,
and reads everything else at the same place, per channel, or as one number.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tenantdl.compile.context import Context, ElementOperand, Form, Group, Tail
from tenantdl.compile.graph import Array, Node
from tenantdl.compile.kernels.epilogue import Operand, Program, Step, supported
from tenantdl.compile.kernels.registry import Template, find

# Steps that turn the zeros of padded channels into inf or NaN, which a zero weight does not undo.
_UNSAFE_ON_PADDING = frozenset({"Div", "Reciprocal", "Log", "Pow"})


@dataclass(slots=True)
class Planned:
    """A group with its template, or a single node without one (generic)."""

    group: Group
    template: Template | None
    form: Form
    position: int


def plan_groups(context: Context) -> list[Planned]:
    """All groups in execution order; fills `context.forms` and `context.borders`."""
    graph = context.graph
    consumers = graph.consumers()
    index = {id(node): position for position, node in enumerate(graph.nodes)}
    taken: set[int] = set()
    planned: list[Planned] = []
    for position, node in enumerate(graph.nodes):
        if id(node) in taken:
            continue
        found = find(context, node)
        template: Template | None = None
        form: Form = "plain"
        if found is not None:
            template, form = found
        group = Group(node, node.outputs[0], [], [node])
        if template is not None and template.fuses:
            _absorb(context, group, form, consumers, taken)
            position = index[id(group.covered[-1])]
        for covered in group.covered:
            for name in covered.outputs:
                context.forms[name] = form
        if template is not None and template.border is not None:
            value = node.inputs[0]
            border = template.border(context, node)
            known = context.borders.get(value)
            context.borders[value] = border if known is None else known.union(border)
        planned.append(Planned(group, template, form, position))
    return sorted(planned, key=lambda entry: entry.position)


def _absorb(
    context: Context,
    group: Group,
    form: Form,
    consumers: dict[str, list[Node]],
    taken: set[int],
) -> None:
    graph = context.graph
    while group.output not in graph.outputs:
        readers = consumers.get(group.output, [])
        if len(readers) != 1 or id(readers[0]) in taken:
            return
        tail = make_tail(context, readers[0], group.output, form)
        if tail is None:
            return
        group.tails.append(tail)
        group.covered.append(readers[0])
        taken.add(id(readers[0]))
        group.output = readers[0].outputs[0]


def make_tail(context: Context, node: Node, running: str, form: Form) -> Tail | None:
    """`node` as a step behind value `running`, or None if it cannot be one."""
    if not supported(node.op) or len(node.outputs) != 1:
        return None
    out = context.type(node.outputs[0])
    if out != context.type(running) or out.dtype != "float32":
        return None
    attrs = _attributes(context, node)
    if attrs is None:
        return None
    names = node.inputs[:1] if node.op == "Clip" else node.inputs
    ragged = form == "packed" and out.shape[1] % context.target.lanes != 0
    args: list[ElementOperand] = []
    for name in names:
        if name == running:
            args.append("")
            continue
        array = context.array(name)
        if array is not None and array.size == 1 and array.dtype == np.float32:
            args.append(float(array.reshape(())))
        elif _access(context, name, out.shape, form) is not None:
            if ragged and node.op in _UNSAFE_ON_PADDING:
                return None
            args.append(name)
        else:
            return None
    if ragged and node.op in _UNSAFE_ON_PADDING and args[-1:] == [""]:
        return None
    return Tail(node.op, tuple(args), attrs)


def _attributes(context: Context, node: Node) -> tuple[tuple[str, Any], ...] | None:
    """The node's attributes as a step's; Clip's bounds come from constant inputs."""
    if node.op != "Clip":
        return tuple(sorted(node.attrs.items()))
    bounds = {"min": -3.402823466e38, "max": 3.402823466e38}
    for key, name in zip(("min", "max"), node.inputs[1:], strict=False):
        if not name:
            continue
        array = context.array(name)
        if array is None or array.size != 1:
            return None
        bounds[key] = float(array.reshape(()))
    return tuple(sorted(bounds.items()))


def _access(context: Context, name: str, shape: tuple[int, ...], form: Form) -> str | None:
    """How operand `name` is read for an output of `shape`; None if it cannot be."""
    kind = context.type(name)
    if kind.dtype != "float32":
        return None
    array = context.array(name)
    if array is not None and _channel_vector(array, shape, form) is not None:
        return "channel"
    if kind.shape == shape:
        return "full"
    gate = len(shape) == 4 and kind.shape == (shape[0], shape[1], 1, 1)
    return "image" if form == "packed" and array is None and gate else None


def _channel_vector(array: Array, shape: tuple[int, ...], form: Form) -> Array | None:
    """The constant as one value a channel (packed) or of the last dimension (plain)."""
    axis = 1 if form == "packed" else len(shape) - 1
    padded = (1,) * (len(shape) - array.ndim) + array.shape
    expected = tuple(shape[i] if i == axis else 1 for i in range(len(shape)))
    return array.reshape(-1) if padded == expected else None


def bind_program(context: Context, group: Group, form: Form) -> tuple[Program, tuple[str, ...]]:
    """The group's tails as a program, and the buffers of its parameters. Converts operands to
    `form` where needed, so call it before declaring outputs that operands may alias."""
    shape = context.type(group.output).shape
    operands: list[Operand] = []
    buffers: list[str] = []
    numbers: dict[ElementOperand, int] = {}
    for tail in group.tails:
        for argument in tail.args:
            if argument == "" or argument in numbers:
                continue
            if isinstance(argument, str):
                operand, buffer = _operand(context, argument, shape, form, tail.op)
                buffers.append(buffer)
            else:
                operand = Operand("scalar", value=argument)
            operands.append(operand)
            numbers[argument] = len(operands)
    steps: list[Step] = []
    running = 0
    for tail in group.tails:
        args = tuple(running if argument == "" else numbers[argument] for argument in tail.args)
        steps.append(Step(tail.op, args, tail.attrs))
        running = len(operands) + len(steps)
    return Program(tuple(operands), tuple(steps)), tuple(buffers)


def bind_rows(context: Context, group: Group, columns: int) -> tuple[Program, tuple[str, ...]]:
    """`bind_program` for a kernel whose rows of `columns` elements are several last dimensions, or
    only a part of one: constants of the last dimension are repeated to a row's length, or to the
    whole output's."""
    program, buffers = bind_program(context, group, "plain")
    size = context.type(group.output).size
    operands, bound = list(program.operands), []
    numbers = [i for i, operand in enumerate(operands) if operand.access != "scalar"]
    for number, name in zip(numbers, buffers, strict=True):
        array = context.program.constants.get(name)
        if operands[number].access == "channel" and array is not None and array.size != columns:
            length = columns if array.size < columns else size
            name = context.constant(np.tile(array, length // array.size))
            operands[number] = Operand("channel" if length == columns else "full")
        bound.append(name)
    return replace(program, operands=tuple(operands)), tuple(bound)


def _operand(
    context: Context, name: str, shape: tuple[int, ...], form: Form, op: str
) -> tuple[Operand, str]:
    access = _access(context, name, shape, form)
    assert access is not None
    if access == "channel":
        vector = _channel_vector(context.graph.constants[name], shape, form)
        assert vector is not None
        if form == "packed":
            vector = pad_channels(vector, context.target.lanes, 1.0 if op == "Div" else 0.0)
        return Operand(access), context.constant(vector)
    if form == "packed":
        buffer, layout = context.packed(name)
        return Operand(access, layout), buffer
    return Operand(access), context.plain(name)


def pad_channels(vector: Array, lanes: int, fill: float = 0.0) -> Array:
    """A channel vector as [blocks][lanes], missing channels set to `fill`."""
    blocks = -(-vector.size // lanes)
    padded = np.full(blocks * lanes, fill, np.float32)
    padded[: vector.size] = vector
    return padded.reshape(blocks, lanes)
