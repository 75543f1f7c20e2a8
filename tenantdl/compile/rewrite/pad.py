"""A Pad of zeros goes into the convolution or pooling behind it."""

from __future__ import annotations

from tenantdl.compile.graph import Node
from tenantdl.compile.rewrite.edit import Editor

_LOWEST = -3.4e38
_NEVER_NEGATIVE = ("Relu", "Sigmoid", "HardSigmoid", "Softmax", "Abs", "Exp")


def _absorb(edit: Editor, node: Node) -> bool:
    pad = edit.inner(node.inputs[0], "Pad")
    if pad is None or pad.attrs.get("mode", "constant") != "constant":
        return False
    rank = len(edit.shape(pad.inputs[0]))
    amounts = _amounts(edit, pad, rank)
    if amounts is None or any(amounts[i] for i in (0, 1, rank, rank + 1)) or min(amounts) < 0:
        return False
    if node.attrs.get("auto_pad", "NOTSET") not in ("NOTSET", "", "VALID"):
        return False
    spatial = rank - 2
    own = [0] * 2 * spatial
    if node.attrs.get("auto_pad", "NOTSET") != "VALID":
        own = list(node.attrs.get("pads", own))
    if not _same_value(edit, node, pad, own):
        return False
    more = amounts[2:rank] + amounts[rank + 2 :]
    pads = [a + b for a, b in zip(own, more, strict=True)]
    window = node.attrs.get("kernel_shape", [])
    if node.op != "Conv" and any(p >= k for p, k in zip(pads, [*window, *window], strict=True)):
        return False  # a window of nothing but padding has no maximum
    attrs = {**node.attrs, "pads": pads}
    attrs.pop("auto_pad", None)
    if node.op == "AveragePool":
        attrs["count_include_pad"] = 1
    edit.replace(node, node.op, [pad.inputs[0], *node.inputs[1:]], attrs)
    return True


def _amounts(edit: Editor, pad: Node, rank: int) -> list[int] | None:
    """Elements added at the begin and at the end of every axis."""
    amounts = edit.numbers(pad.inputs[1])
    axes = edit.numbers(pad.inputs[3]) if len(pad.inputs) > 3 and pad.inputs[3] else None
    if amounts is None or axes is None:
        return amounts if amounts is None or len(pad.inputs) < 4 or not pad.inputs[3] else None
    full = [0] * 2 * rank
    for position, axis in enumerate(axes):
        full[axis % rank] = amounts[position]
        full[rank + axis % rank] = amounts[len(axes) + position]
    return full


def _same_value(edit: Editor, node: Node, pad: Node, own: list[int]) -> bool:
    """Whether the operator pads with what Pad pads with."""
    name = pad.inputs[2] if len(pad.inputs) > 2 else ""
    value = edit.scalar(name) if name else 0.0
    if value is None:
        return False
    if node.op == "Conv":
        return value == 0.0
    if node.attrs.get("ceil_mode", 0) or len([out for out in node.outputs if out]) > 1:
        return False
    if node.op == "AveragePool":
        return value == 0.0 and not any(own)
    before = edit.producer(pad.inputs[0], *_NEVER_NEGATIVE)
    return value <= _LOWEST or (value == 0.0 and before is not None and not any(own))


PATTERNS = {"Conv": _absorb, "MaxPool": _absorb, "AveragePool": _absorb}
