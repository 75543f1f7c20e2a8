"""Factors and offsets by constants of the channels go into the weights and bias before them.

Behind Conv and ConvTranspose both; behind MatMul only factors, since an Add is its bias already.
Products are taken in float64, so that weights are rounded once.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tenantdl.compile.graph import Array, Node
from tenantdl.compile.rewrite.edit import Editor

_Fold = Callable[[Array, Array], Array]
_PRODUCTS: dict[str, _Fold] = {"Mul": lambda w, c: w * c, "Div": lambda w, c: w / c}
_SUMS: dict[str, _Fold] = {"Add": lambda b, c: b + c, "Sub": lambda b, c: b - c}


def _fold(edit: Editor, node: Node) -> bool:
    sides = edit.constant_side(node)
    if sides is None or (node.op in ("Div", "Sub") and sides[0] != node.inputs[0]):
        return False
    anchor = edit.inner(sides[0], "Conv", "ConvTranspose", "MatMul", "Add")
    if anchor is None or edit.shape(sides[0]) != edit.shape(node.outputs[0]):
        return False
    if not edit.is_float(node.outputs[0]):
        return False
    axis = 1 if anchor.op.startswith("Conv") else len(edit.shape(sides[0])) - 1
    vector = _channels(edit, sides[1], edit.shape(sides[0]), axis)
    if vector is None or not np.isfinite(vector).all() or (node.op == "Div" and not vector.all()):
        return False
    if anchor.op.startswith("Conv"):
        return _into_conv(edit, node, anchor, vector)
    if node.op not in _PRODUCTS:
        return False
    if anchor.op == "MatMul":
        return _into_matmul(edit, node, anchor, vector)
    return _through_add(edit, node, anchor, vector)


def _channels(edit: Editor, name: str, shape: tuple[int, ...], axis: int) -> Array | None:
    """The constant as one float64 a channel, or None if it varies otherwise."""
    array = edit.graph.constants[edit.name(name)]
    padded = (1,) * (len(shape) - array.ndim) + array.shape
    if len(padded) != len(shape) or any(n != 1 and i != axis for i, n in enumerate(padded)):
        return None
    return np.broadcast_to(array.reshape(-1), (shape[axis],)).astype(np.float64)


def _into_conv(edit: Editor, node: Node, conv: Node, vector: Array) -> bool:
    weights = edit.array(conv.inputs[1])
    has_bias = len(conv.inputs) > 2 and bool(conv.inputs[2])
    bias = edit.array(conv.inputs[2]) if has_bias else np.zeros(vector.size)
    if weights is None or bias is None:
        return False
    name = conv.inputs[1]
    if node.op in _PRODUCTS:
        folded = _PRODUCTS[node.op](np.float64(weights), _along(conv, weights, vector))
        name = edit.constant(folded.astype(np.float32), name)
        bias = _PRODUCTS[node.op](bias, vector)
    else:
        bias = _SUMS[node.op](bias, vector)
    offset = edit.constant(bias.astype(np.float32), f"{node.outputs[0]}.bias")
    edit.replace(node, conv.op, [conv.inputs[0], name, offset], dict(conv.attrs))
    return True


def _along(conv: Node, weights: Array, vector: Array) -> Array:
    """The output channels' `vector`, shaped to multiply `weights`."""
    rank = weights.ndim
    if conv.op == "Conv":
        return vector.reshape(-1, *[1] * (rank - 1))
    # ConvTranspose: [inputs][outputs / groups]; inputs of group g belong to its outputs.
    groups = int(conv.attrs.get("group", 1))
    rows = np.repeat(vector.reshape(groups, -1), weights.shape[0] // groups, axis=0)
    return rows.reshape(*rows.shape, *[1] * (rank - 2))


def _into_matmul(edit: Editor, node: Node, matmul: Node, vector: Array) -> bool:
    weights = edit.array(matmul.inputs[1])
    if weights is None or weights.ndim < 2 or edit.array(matmul.inputs[0]) is not None:
        return False
    folded = _PRODUCTS[node.op](np.float64(weights), vector).astype(np.float32)
    edit.replace(node, "MatMul", [matmul.inputs[0], edit.constant(folded, matmul.inputs[1])], None)
    return True


def _through_add(edit: Editor, node: Node, add: Node, vector: Array) -> bool:
    """(x·W + b) · c = x·(W·c) + b·c."""
    sides = edit.constant_side(add)
    matmul = edit.inner(sides[0], "MatMul") if sides else None
    if sides is None or matmul is None or edit.array(matmul.inputs[1]) is None:
        return False
    shape = edit.shape(node.outputs[0])
    bias = _channels(edit, sides[1], shape, len(shape) - 1)
    if bias is None or edit.shape(matmul.outputs[0]) != shape:
        return False
    weights = edit.graph.constants[edit.name(matmul.inputs[1])]
    if weights.ndim < 2:
        return False
    fold = _PRODUCTS[node.op]
    names = [
        edit.constant(fold(np.float64(array), vector).astype(np.float32), node.outputs[0])
        for array in (weights, bias)
    ]
    product = edit.value(shape, node.outputs[0])
    edit.substitute(
        node,
        Node("MatMul", [matmul.inputs[0], names[0]], [product]),
        Node("Add", [product, names[1]], list(node.outputs)),
    )
    return True


PATTERNS = {"Mul": _fold, "Div": _fold, "Add": _fold, "Sub": _fold}
