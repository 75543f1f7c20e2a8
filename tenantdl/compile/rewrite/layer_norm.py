"""LayerNormalization from its parts, and channel factors and offsets into its scale and bias.

(x − mean) / √(mean((x − mean)²) + ε), over trailing dimensions; Mul and Add behind it follow.
Without the mean, x / √(mean(x²) + ε), it is RMSNormalization.
"""

from __future__ import annotations

import math

import numpy as np

from tenantdl.compile.graph import Array, Node
from tenantdl.compile.rewrite.edit import Editor


def _divided(edit: Editor, node: Node) -> bool:
    """centred / √(variance + ε)."""
    root = edit.producer(node.inputs[1], "Sqrt")
    return root is not None and _normalised(edit, node, node.inputs[0], root.inputs[0])


def _multiplied(edit: Editor, node: Node) -> bool:
    """centred · (1 / √(variance + ε)), or a factor behind a LayerNormalization."""
    for centred, factor in (node.inputs, node.inputs[::-1]):
        inverse = edit.producer(factor, "Reciprocal", "Div")
        if inverse is None:
            continue
        if inverse.op == "Div" and edit.scalar(inverse.inputs[0]) != 1.0:
            continue
        root = edit.producer(inverse.inputs[-1], "Sqrt")
        if root is not None and _normalised(edit, node, centred, root.inputs[0]):
            return True
    return _scaled(edit, node)


def _normalised(edit: Editor, node: Node, centred: str, shifted: str) -> bool:
    add = edit.producer(shifted, "Add")
    sides = edit.constant_side(add) if add is not None else None
    epsilon = edit.scalar(sides[1]) if sides else None
    if sides is None or epsilon is None or not edit.is_float(node.outputs[0]):
        return False
    variance = edit.producer(sides[0], "ReduceMean")
    square = edit.producer(variance.inputs[0], "Mul") if variance is not None else None
    if variance is None or square is None:
        return False
    axis = _trailing(edit, variance, len(edit.shape(centred)))
    found = _source(edit, centred, square.inputs, axis) if axis is not None else None
    if found is None or edit.type(found[0]) != edit.type(node.outputs[0]):
        return False
    x, op = found
    scale = edit.constant(np.ones(edit.shape(x)[axis:], np.float32), node.outputs[0])
    attrs = {"axis": axis, "epsilon": epsilon}
    domain = "tenantdl" if op == "RMSNormalization" else ""
    edit.substitute(node, Node(op, [x, scale], list(node.outputs), attrs, node.name, domain))
    return True


def _source(
    edit: Editor, divided: str, squared: list[str], axis: int | None
) -> tuple[str, str] | None:
    """What is normalised, and the operator that does so; `squared` must be what is divided."""
    centred = {_centred(edit, name) for name in (divided, *squared)}
    for found in centred:
        if len(centred) == 1 and found is not None and found[1] == axis:
            return found[0], "LayerNormalization"
    same = all(edit.name(name) == edit.name(divided) for name in squared)
    return (edit.name(divided), "RMSNormalization") if same else None


def _centred(edit: Editor, value: str) -> tuple[str, int] | None:
    """x and the first reduced axis, if `value` is x − mean(x)."""
    sub = edit.producer(value, "Sub")
    mean = edit.producer(sub.inputs[1], "ReduceMean") if sub is not None else None
    if sub is None or mean is None or edit.name(mean.inputs[0]) != edit.name(sub.inputs[0]):
        return None
    axis = _trailing(edit, mean, len(edit.shape(value)))
    return (edit.name(sub.inputs[0]), axis) if axis is not None else None


def _trailing(edit: Editor, node: Node, rank: int) -> int | None:
    """The first reduced axis, if those reduced are the last ones and stay as 1."""
    axes = edit.numbers(node.inputs[1]) if len(node.inputs) > 1 else None
    if not axes or not node.attrs.get("keepdims", 1):
        return None
    found = sorted(axis % rank for axis in axes)
    return found[0] if found == list(range(found[0], rank)) else None


def _behind(edit: Editor, node: Node) -> tuple[Node, Array] | None:
    """The normalisation before `node`, and the node's constant in the shape of a scale."""
    sides = edit.constant_side(node)
    norm = edit.inner(sides[0], "LayerNormalization", "RMSNormalization") if sides else None
    if sides is None or norm is None or len([name for name in norm.outputs if name]) != 1:
        return None
    shape = edit.shape(norm.inputs[0])
    axis = int(norm.attrs.get("axis", -1)) % len(shape)
    array = edit.graph.constants[edit.name(sides[1])]
    if array.dtype != np.float32 or edit.shape(node.outputs[0]) != shape:
        return None
    lead, own = max(0, array.ndim - (len(shape) - axis)), shape[axis:]
    if math.prod(array.shape[:lead]) != 1:
        return None
    return norm, np.broadcast_to(array.reshape(array.shape[lead:]), own)


def _scaled(edit: Editor, node: Node) -> bool:
    """scale · factor, bias · factor."""
    found = _behind(edit, node)
    if found is None:
        return False
    norm, factor = found
    parts = [edit.array(name) for name in norm.inputs[1:] if name]
    if any(part is None for part in parts):
        return False
    scaled = [edit.constant(part * factor, norm.inputs[1]) for part in parts if part is not None]
    inputs = [norm.inputs[0], *scaled]
    new = Node(norm.op, inputs, list(node.outputs), dict(norm.attrs), node.name, norm.domain)
    edit.substitute(node, new)
    return True


def _shifted(edit: Editor, node: Node) -> bool:
    """bias + offset."""
    found = _behind(edit, node)
    if found is None or found[0].op != "LayerNormalization":
        return False
    norm, offset = found
    old = edit.array(norm.inputs[2]) if len(norm.inputs) > 2 and norm.inputs[2] else None
    if len(norm.inputs) > 2 and norm.inputs[2] and old is None:
        return False
    bias = edit.constant(np.ascontiguousarray(offset if old is None else old + offset), node.name)
    edit.replace(node, norm.op, [*norm.inputs[:2], bias], dict(norm.attrs))
    return True


PATTERNS = {"Div": _divided, "Mul": _multiplied, "Add": _shifted}
