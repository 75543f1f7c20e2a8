"""The projections before a FusedAttention, where they read one tensor, become one MatMul.

Their weights stand side by side, their results are views of one tensor: one pass over the input,
one kernel, and work that divides evenly among cores.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tenantdl.compile.graph import Array, Node
from tenantdl.compile.rewrite.edit import Editor


@dataclass(frozen=True, slots=True)
class _Linear:
    """x·weights + bias."""

    value: str
    x: str
    weights: Array
    bias: Array


def _merge(edit: Editor, node: Node) -> bool:
    names = [edit.name(name) for name in node.inputs[:3]]
    found = [_linear(edit, name) for name in dict.fromkeys(names)]
    linears = [part for part in found if part is not None]
    groups = {part.x: [other for other in linears if other.x == part.x] for part in linears}
    group = max(groups.values(), key=len, default=[])
    if len(group) < 2 or len({part.weights.shape[0] for part in group}) > 1:
        return False
    width = sum(part.weights.shape[1] for part in group)
    first = {}
    start = 0
    for part in group:
        first[part.value] = start
        start += part.weights.shape[1]
    attrs, inputs = dict(node.attrs), list(node.inputs)
    merged = edit.value((*edit.shape(group[0].value)[:-1], width), group[0].value)
    for position, key in enumerate(("q", "k", "v")):
        name = names[position]
        if name in first:
            view = _moved(edit, node, key, edit.shape(name)[-1], first[name], width)
            if view is None:
                return False
            attrs[key], inputs[position] = view, merged
    weights = np.concatenate([part.weights for part in group], axis=1)
    bias = np.concatenate([part.bias for part in group])
    product = edit.value(edit.shape(merged), merged)
    names = [edit.constant(array, product) for array in (weights, bias)]
    edit.substitute(
        node,
        Node("MatMul", [group[0].x, names[0]], [product]),
        Node("Add", [product, names[1]], [merged]),
        Node("FusedAttention", inputs, list(node.outputs), attrs, node.name, "tenantdl"),
    )
    return True


def _linear(edit: Editor, value: str) -> _Linear | None:
    """`value` as a projection that only this node reads."""
    add = edit.inner(value, "Add")
    bias = None
    product = value
    if add is not None:
        sides = edit.constant_side(add)
        if sides is None:
            return None
        product, bias = sides[0], edit.array(sides[1])
    matmul = edit.inner(product, "MatMul")
    weights = edit.array(matmul.inputs[1]) if matmul is not None else None
    if matmul is None or weights is None or weights.ndim != 2:
        return None
    columns = weights.shape[1]
    if bias is not None and (bias.size != columns or bias.shape[-1] != columns):
        return None
    vector = np.zeros(columns, np.float32) if bias is None else bias.reshape(-1)
    return _Linear(value, edit.name(matmul.inputs[0]), weights, vector)


def _moved(
    edit: Editor, node: Node, key: str, old: int, start: int, new: int
) -> tuple[int, ...] | None:
    """A view of rows of `old` elements as one of rows of `new`, its columns beginning at `start`.
    None if one of its dimensions runs across rows."""
    offset, *strides = node.attrs[key]
    batch, heads, queries, keys, depth, value_depth = node.attrs["sizes"]
    tokens = queries if key == "q" else keys
    extents = (batch, heads, tokens, value_depth if key == "v" else depth)
    reach = offset % old
    moved = []
    for extent, stride in zip(extents, strides, strict=True):
        if extent == 1:
            moved.append(0)
        elif stride % old == 0:
            moved.append(stride // old * new)
        else:
            reach += (extent - 1) * stride
            moved.append(stride)
    return (offset // old * new + offset % old + start, *moved) if reach < old else None


PATTERNS = {"FusedAttention": _merge}
