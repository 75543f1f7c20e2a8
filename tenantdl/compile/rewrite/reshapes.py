"""Reshapes move behind the elementwise nodes that follow a convolution, so that these fuse with it;
two in a row are one, and slices of everything vanish."""

from __future__ import annotations

from tenantdl.compile.graph import Node
from tenantdl.compile.rewrite.edit import Editor

_VIEWS = ("Reshape", "Squeeze", "Unsqueeze", "Flatten")
_ANCHORS = ("Conv", "ConvTranspose")
_UNARY = ("Relu", "LeakyRelu", "Sigmoid", "Silu", "Tanh", "Erf", "Gelu", "HardSigmoid", "HardSwish")


def _behind(edit: Editor, node: Node, value: str) -> tuple[Node, str] | None:
    """The reshape that wrote `value` and its input, if that is a convolution's (activated) output
    of the same images and channels."""
    view = edit.inner(value, *_VIEWS)
    if view is None or not edit.is_float(value):
        return None
    x = view.inputs[0]
    before = edit.inner(x, *_ANCHORS, *_UNARY)
    if before is not None and before.op in _UNARY:
        before = edit.producer(before.inputs[0], *_ANCHORS)
    same = edit.shape(x)[:2] == edit.shape(value)[:2]
    if before is None or not same or edit.shape(node.outputs[0]) != edit.shape(value):
        return None
    return view, x


def _moved(edit: Editor, node: Node, x: str, operands: list[str]) -> bool:
    """`node` on the reshape's input `x`, then the reshape."""
    out = node.outputs[0]
    inner = edit.value(edit.shape(x), out)
    shape = edit.ints(edit.shape(out), "shape")
    edit.substitute(
        node,
        Node(node.op, operands, [inner], dict(node.attrs), node.name, node.domain),
        Node("Reshape", [inner, shape], [out]),
    )
    return True


def _unary(edit: Editor, node: Node) -> bool:
    found = _behind(edit, node, node.inputs[0])
    return found is not None and _moved(edit, node, found[1], [found[1], *node.inputs[1:]])


def _channels(edit: Editor, node: Node) -> bool:
    """A constant of the channels."""
    sides = edit.constant_side(node)
    found = _behind(edit, node, sides[0]) if sides else None
    if sides is None or found is None:
        return False
    array, shape = edit.graph.constants[edit.name(sides[1])], edit.shape(sides[0])
    padded = (1,) * (len(shape) - array.ndim) + array.shape
    if array.size != 1 and padded != (1, shape[1], *[1] * (len(shape) - 2)):
        return False
    x = found[1]
    vector = array.reshape(1, -1, *[1] * (len(edit.shape(x)) - 2))
    constant = edit.constant(vector, sides[1])
    return _moved(edit, node, x, [x if name == sides[0] else constant for name in node.inputs])


def _reshape(edit: Editor, node: Node) -> bool:
    """Two reshapes in a row are one."""
    before = edit.producer(node.inputs[0], *_VIEWS)
    if before is None:
        return False
    shape = edit.ints(edit.shape(node.outputs[0]), "shape")
    edit.replace(node, "Reshape", [before.inputs[0], shape], None)
    return True


def _slice(edit: Editor, node: Node) -> bool:
    """A slice of everything."""
    steps = edit.numbers(node.inputs[4]) if len(node.inputs) > 4 and node.inputs[4] else [1]
    same = edit.shape(node.inputs[0]) == edit.shape(node.outputs[0])
    forward = steps is not None and min(steps) > 0
    return same and forward and edit.forward(node, node.inputs[0])


PATTERNS = {
    **dict.fromkeys(_UNARY, _unary),
    **dict.fromkeys(("Add", "Sub", "Mul", "Div"), _channels),
    **dict.fromkeys(_VIEWS, _reshape),
    "Slice": _slice,
}
