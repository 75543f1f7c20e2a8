"""x · sigmoid(x) as Silu; clip(x + 3, 0, 6) / 6 as HardSigmoid, times x as HardSwish."""

from __future__ import annotations

import math

from tenantdl.compile.graph import Node
from tenantdl.compile.rewrite.edit import Editor

_SIXTH = 1 / 6


def _close(number: float | None, expected: float) -> bool:
    return number is not None and math.isclose(number, expected, rel_tol=1e-6)


def _clipped(edit: Editor, value: str) -> str | None:
    """x, if `value` is clip(x + 3, 0, 6) and nobody else needs it."""
    clip = edit.inner(value, "Clip")
    if clip is None or len(clip.inputs) != 3:
        return None
    if edit.scalar(clip.inputs[1]) != 0.0 or edit.scalar(clip.inputs[2]) != 6.0:
        return None
    add = edit.inner(clip.inputs[0], "Add")
    sides = edit.constant_side(add) if add is not None else None
    return sides[0] if sides and edit.scalar(sides[1]) == 3.0 else None


def _sixth(edit: Editor, node: Node) -> str | None:
    """x, if `node` is x / 6."""
    if node.op == "Div":
        return node.inputs[0] if _close(edit.scalar(node.inputs[1]), 6.0) else None
    sides = edit.constant_side(node)
    return sides[0] if sides and _close(edit.scalar(sides[1]), _SIXTH) else None


def _scaled(edit: Editor, node: Node) -> bool:
    """(x · clip(x + 3, 0, 6)) / 6, or without the x."""
    value = _sixth(edit, node)
    if value is None or edit.type(value) != edit.type(node.outputs[0]):
        return False
    x = _clipped(edit, value)
    if x is not None:
        edit.replace(node, "HardSigmoid", [x], {"alpha": _SIXTH, "beta": 0.5})
        return True
    product = edit.inner(value, "Mul")
    if product is None:
        return False
    for x, gate in (product.inputs, product.inputs[::-1]):
        if _clipped(edit, gate) == x:
            edit.replace(node, "HardSwish", [x], None)
            return True
    return False


def _product(edit: Editor, node: Node) -> bool:
    """x times a gate of x, or a division by 6 written as a product."""
    for x, gate in (node.inputs, node.inputs[::-1]):
        before = edit.inner(gate, "Sigmoid", "HardSigmoid")
        if before is None or edit.name(before.inputs[0]) != edit.name(x) or not edit.is_float(x):
            continue
        if before.op == "Sigmoid":
            new = Node("Silu", [x], list(node.outputs), {}, node.name, "tenantdl")
            edit.substitute(node, new)
            return True
        alpha, beta = before.attrs.get("alpha", 0.2), before.attrs.get("beta", 0.5)
        if _close(alpha, _SIXTH) and _close(beta, 0.5):
            edit.replace(node, "HardSwish", [x], None)
            return True
    return _scaled(edit, node)


PATTERNS = {"Mul": _product, "Div": _scaled}
