"""Nodes that do nothing go; others get the plainer name that patterns and kernels know."""

from __future__ import annotations

import numpy as np

from tenantdl.compile.graph import Node
from tenantdl.compile.rewrite.edit import Editor


def _identity(edit: Editor, node: Node) -> bool:
    return edit.forward(node, node.inputs[0])


def _neutral(edit: Editor, node: Node, number: float, *, either_side: bool) -> bool:
    """x + 0, x · 1 and their like."""
    a, b = node.inputs
    if edit.scalar(b) == number and edit.forward(node, a):
        return True
    return either_side and edit.scalar(a) == number and edit.forward(node, b)


def _add(edit: Editor, node: Node) -> bool:
    return _neutral(edit, node, 0.0, either_side=True)


def _sub(edit: Editor, node: Node) -> bool:
    return _neutral(edit, node, 0.0, either_side=False)


def _mul(edit: Editor, node: Node) -> bool:
    return _neutral(edit, node, 1.0, either_side=True)


def _div(edit: Editor, node: Node) -> bool:
    return _neutral(edit, node, 1.0, either_side=False)


def _pow(edit: Editor, node: Node) -> bool:
    """Powers that take no logarithm."""
    x, out = node.inputs[0], node.outputs[0]
    power = edit.scalar(node.inputs[1])
    if not edit.is_float(x) or edit.type(out) != edit.type(x):
        return False
    if power == 1.0:
        return edit.forward(node, x)
    if power == 2.0:
        edit.replace(node, "Mul", [x, x], None)
    elif power == 3.0:
        square = edit.value(edit.shape(x), out)
        first = Node("Mul", [x, x], [square])
        edit.substitute(node, first, Node("Mul", [square, x], [out]))
    elif power == 0.5:
        edit.replace(node, "Sqrt", [x], None)
    else:
        return False
    return True


def _sum(edit: Editor, node: Node) -> bool:
    """Sum of one or two."""
    if len(node.inputs) == 1:
        return edit.forward(node, node.inputs[0])
    if len(node.inputs) != 2:
        return False
    edit.replace(node, "Add", list(node.inputs), None)
    return True


def _clip(edit: Editor, node: Node) -> bool:
    """Clip from 0 on is Relu."""
    low = edit.scalar(node.inputs[1]) if len(node.inputs) > 1 and node.inputs[1] else None
    open_above = len(node.inputs) < 3 or not node.inputs[2]
    if low != 0.0 or not open_above or not edit.is_float(node.inputs[0]):
        return False
    edit.replace(node, "Relu", node.inputs[:1], None)
    return True


def _min(edit: Editor, node: Node) -> bool:
    """Min(Max(x, low), high) is Clip."""
    outer = edit.constant_side(node) if len(node.inputs) == 2 else None
    if outer is None or edit.scalar(outer[1]) is None:
        return False
    lower = edit.inner(outer[0], "Max", "Relu")
    if lower is None or edit.type(lower.outputs[0]) != edit.type(node.outputs[0]):
        return False
    if lower.op == "Relu":
        low = edit.constant(np.zeros((), edit.type(outer[1]).dtype), outer[1])
        x = lower.inputs[0]
    else:
        sides = edit.constant_side(lower) if len(lower.inputs) == 2 else None
        if sides is None or edit.scalar(sides[1]) is None:
            return False
        x, low = sides
    if edit.type(x) != edit.type(node.outputs[0]):
        return False
    edit.replace(node, "Clip", [x, low, outer[1]], None)
    return True


def _reduce_mean(edit: Editor, node: Node) -> bool:
    """The mean over the image is a pooling."""
    shape = edit.shape(node.inputs[0])
    axes = edit.numbers(node.inputs[1]) if len(node.inputs) > 1 else None
    if axes is None or len(shape) != 4 or not node.attrs.get("keepdims", 1):
        return False
    if sorted(axis % 4 for axis in axes) != [2, 3] or not edit.is_float(node.inputs[0]):
        return False
    edit.replace(node, "GlobalAveragePool", node.inputs[:1], None)
    return True


def _transpose(edit: Editor, node: Node) -> bool:
    """Two in a row are one; one that moves nothing but dimensions of 1 is a Reshape."""
    shape = edit.shape(node.inputs[0])
    order = list(node.attrs.get("perm", range(len(shape))[::-1]))
    before = edit.producer(node.inputs[0], "Transpose")
    if before is not None:
        rank = len(shape)
        first = list(before.attrs.get("perm", range(rank)[::-1]))
        perm = [first[axis] for axis in order]
        edit.replace(node, "Transpose", before.inputs[:1], {"perm": perm})
        return True
    moved = [axis for axis in order if shape[axis] != 1]
    if moved != sorted(moved):
        return False
    if edit.shape(node.outputs[0]) == shape and edit.forward(node, node.inputs[0]):
        return True
    target = edit.ints(edit.shape(node.outputs[0]), f"{node.outputs[0]}.shape")
    edit.replace(node, "Reshape", [node.inputs[0], target], None)
    return True


def _same_type(edit: Editor, node: Node) -> bool:
    """Cast to the type it has, Expand to the shape it has, and the like."""
    return edit.forward(node, node.inputs[0])


def _concat(edit: Editor, node: Node) -> bool:
    return len(node.inputs) == 1 and edit.forward(node, node.inputs[0])


PATTERNS = {
    "Identity": _identity,
    "Dropout": _identity,
    "Add": _add,
    "Sub": _sub,
    "Mul": _mul,
    "Div": _div,
    "Pow": _pow,
    "Sum": _sum,
    "Clip": _clip,
    "Min": _min,
    "ReduceMean": _reduce_mean,
    "Transpose": _transpose,
    "Cast": _same_type,
    "Expand": _same_type,
    "Reshape": _same_type,
    "Concat": _concat,
}
