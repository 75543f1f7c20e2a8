"""GELU as exporters write it: ½ · x · (1 + erf(x/√2)), or with the tanh approximation of erf.

Factors come in any order and nesting, so the product is taken apart first.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from tenantdl.compile.graph import Node
from tenantdl.compile.rewrite.edit import Editor

_TOLERANCE = 1e-4  # exporters round the constants; 0.044715 and √(2/π) have four digits at least
_CUBE = 0.044715


@dataclass(slots=True)
class _Product:
    """A number times values."""

    number: float = 1.0
    values: list[str] = field(default_factory=list)


def _close(number: float | None, expected: float) -> bool:
    return number is not None and math.isclose(number, expected, rel_tol=_TOLERANCE)


def _product(edit: Editor, value: str, depth: int = 4) -> _Product:
    """`value` taken apart at Mul, and Div by numbers."""
    node = edit.producer(value, "Mul", "Div") if depth else None
    if node is None:
        return _Product(1.0, [edit.name(value)])
    a, b = node.inputs
    if node.op == "Div":
        divisor = edit.scalar(b)
        if divisor is None or divisor == 0.0:
            return _Product(1.0, [edit.name(value)])
        left = _product(edit, a, depth - 1)
        return _Product(left.number / divisor, left.values)
    found = _Product()
    for side in (a, b):
        number = edit.scalar(side)
        if number is not None:
            found.number *= number
            continue
        part = _product(edit, side, depth - 1)
        found.number *= part.number
        found.values += part.values
    return found


def _plus(edit: Editor, value: str, number: float) -> str | None:
    """y, if `value` is y + `number`."""
    add = edit.producer(value, "Add")
    sides = edit.constant_side(add) if add is not None else None
    return sides[0] if sides and _close(edit.scalar(sides[1]), number) else None


def _gelu(edit: Editor, node: Node) -> bool:
    out = node.outputs[0]
    product = _product(edit, out)
    if len(product.values) < 2 or not edit.is_float(out):
        return False
    for gate in product.values:
        inner = _plus(edit, gate, 1.0)
        function = edit.producer(inner, "Erf", "Tanh") if inner is not None else None
        if function is None:
            continue
        rest = list(product.values)
        rest.remove(gate)
        if len(rest) != 1 or not _close(product.number, 0.5):
            return False
        x = rest[0]
        if edit.type(x) != edit.type(out):
            return False
        fits = _is_erf if function.op == "Erf" else _is_tanh
        if not fits(edit, function.inputs[0], x):
            return False
        approximate = "none" if function.op == "Erf" else "tanh"
        edit.replace(node, "Gelu", [x], {"approximate": approximate})
        return True
    return False


def _is_erf(edit: Editor, argument: str, x: str) -> bool:
    """Whether `argument` is x/√2."""
    product = _product(edit, argument)
    return product.values == [x] and _close(product.number, math.sqrt(0.5))


def _is_tanh(edit: Editor, argument: str, x: str) -> bool:
    """Whether `argument` is √(2/π) · (x + 0.044715·x³), x perhaps outside the brackets."""
    product = _product(edit, argument)
    if not _close(product.number, math.sqrt(2 / math.pi)):
        return False
    if len(product.values) == 2 and x in product.values:
        product.values.remove(x)
        square = _plus(edit, product.values[0], 1.0)
        return square is not None and _is_power(edit, square, x, 2)
    add = edit.producer(product.values[0], "Add") if len(product.values) == 1 else None
    if add is None:
        return False
    names = [edit.name(name) for name in add.inputs]
    if x not in names:
        return False
    names.remove(x)
    return _is_power(edit, names[0], x, 3)


def _is_power(edit: Editor, value: str, x: str, power: int) -> bool:
    """Whether `value` is 0.044715 · x**power."""
    product = _product(edit, value)
    return product.values == [x] * power and _close(product.number, _CUBE)


PATTERNS = {"Mul": _gelu, "Div": _gelu}
