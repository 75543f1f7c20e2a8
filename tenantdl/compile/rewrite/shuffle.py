"""A channel shuffle goes into the convolution before it, whose output channels it permutes.

    Conv → activations → Reshape [N][a][b]… → Transpose a ↔ b → Reshape [N][b·a]…

Groups become dense weights with zeros outside the groups: what the kernels do anyway where groups
are not whole blocks of channels. Where they are, and for many groups, the shuffle stays.
"""

from __future__ import annotations

import numpy as np

from tenantdl.compile.graph import Array, Node
from tenantdl.compile.rewrite.edit import Editor

_ELEMENTWISE = ("Relu", "Clip", "Sigmoid", "HardSigmoid", "HardSwish", "Silu", "LeakyRelu", "Tanh")
_GROUPS_MAX = 16
_BLOCK = 16  # channels; groups of whole blocks have kernels of their own


def _shuffle(edit: Editor, node: Node) -> bool:
    transpose = edit.inner(node.inputs[0], "Transpose")
    opened = edit.inner(transpose.inputs[0], "Reshape") if transpose is not None else None
    if transpose is None or opened is None:
        return False
    order = _order(edit, node, transpose, opened)
    if order is None:
        return False
    between: list[Node] = []
    value = opened.inputs[0]
    while (step := edit.inner(value, *_ELEMENTWISE)) is not None:
        between.append(step)
        value = step.inputs[0]
    conv = edit.inner(value, "Conv")
    weights = _dense_weights(edit, conv) if conv is not None else None
    if conv is None or weights is None:
        return False
    inputs = [conv.inputs[0], edit.constant(weights[order], conv.inputs[1])]
    if len(conv.inputs) > 2 and conv.inputs[2]:
        bias = edit.array(conv.inputs[2])
        if bias is None:
            return False
        inputs.append(edit.constant(bias[order], conv.inputs[2]))
    shape, out = edit.shape(node.outputs[0]), node.outputs[0]
    nodes: list[Node] = []
    for step in (conv, *between[::-1]):
        rest = inputs[1:] if step is conv else step.inputs[1:]
        attrs = {**step.attrs, "group": 1} if step is conv else dict(step.attrs)
        first = nodes[-1].outputs[0] if nodes else inputs[0]
        name = out if step is (between or [conv])[0] else edit.value(shape, out)
        nodes.append(Node(step.op, [first, *rest], [name], attrs, step.name, step.domain))
    edit.substitute(node, *nodes)
    return True


def _order(edit: Editor, node: Node, transpose: Node, opened: Node) -> Array | None:
    """Channels in the order in which they come out, or None where it is no channel shuffle."""
    before, inner = edit.shape(opened.inputs[0]), edit.shape(opened.outputs[0])
    rank = len(before)
    if rank < 3 or edit.shape(node.outputs[0]) != before or not edit.is_float(node.outputs[0]):
        return None
    swapped = [0, 2, 1, *range(3, rank + 1)]
    fits = inner[:1] == before[:1] and inner[3:] == before[2:] and len(inner) == rank + 1
    if not fits or list(transpose.attrs.get("perm", [])) != swapped:
        return None
    order: Array = np.arange(before[1]).reshape(inner[1:3]).T.reshape(-1)
    return order


def _dense_weights(edit: Editor, conv: Node) -> Array | None:
    """The convolution's weights without groups, or None where these are worth keeping."""
    weights, groups = edit.array(conv.inputs[1]), int(conv.attrs.get("group", 1))
    if weights is None or groups == 1:
        return weights
    outputs, inner = weights.shape[:2]
    step = outputs // groups
    if groups > _GROUPS_MAX or inner == 1 or (step % _BLOCK == 0 and inner % _BLOCK == 0):
        return None
    full = np.zeros((outputs, groups * inner, *weights.shape[2:]), weights.dtype)
    for g in range(groups):
        rows = slice(g * step, (g + 1) * step)
        full[rows, g * inner : (g + 1) * inner] = weights[rows]
    return full


PATTERNS = {"Reshape": _shuffle}
