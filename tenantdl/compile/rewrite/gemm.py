"""Gemm is alpha · A' · B' + beta · C: a MatMul, whose constants take the factors, and an Add."""

from __future__ import annotations

import numpy as np

from tenantdl.compile.graph import Node
from tenantdl.compile.rewrite.edit import Editor


def _gemm(edit: Editor, node: Node) -> bool:
    out = node.outputs[0]
    if not edit.is_float(out):
        return False
    attrs = node.attrs
    alpha, beta = float(attrs.get("alpha", 1.0)), float(attrs.get("beta", 1.0))
    nodes: list[Node] = []
    a = _transposed(edit, nodes, node.inputs[0], int(attrs.get("transA", 0)))
    b, scaled = _right(edit, nodes, node.inputs[1], int(attrs.get("transB", 0)), alpha)
    bias = node.inputs[2] if len(node.inputs) > 2 else ""
    bias = "" if beta == 0.0 else bias
    steps = [("MatMul", [a, b])]
    if not scaled:
        steps.append(("Mul", [edit.constant(np.float32(alpha).reshape(()), out)]))
    if bias:
        steps.append(("Add", [_times(edit, nodes, bias, beta)]))
    value = ""
    for position, (op, inputs) in enumerate(steps):
        target = out if position == len(steps) - 1 else edit.value(edit.shape(out), out)
        nodes.append(Node(op, [*([value] if value else []), *inputs], [target]))
        value = target
    edit.substitute(node, *nodes)
    return True


def _transposed(edit: Editor, nodes: list[Node], value: str, transposed: int) -> str:
    if not transposed:
        return value
    rows, columns = edit.shape(value)
    turned = edit.value((columns, rows), value)
    nodes.append(Node("Transpose", [value], [turned], {"perm": [1, 0]}))
    return turned


def _right(
    edit: Editor, nodes: list[Node], value: str, transposed: int, alpha: float
) -> tuple[str, bool]:
    """B' as a value, and whether it holds the factor alpha already."""
    array = edit.array(value)
    if array is None:
        return _transposed(edit, nodes, value, transposed), alpha == 1.0
    if not transposed and alpha == 1.0:
        return value, True
    weights = array.T if transposed else array
    if alpha != 1.0:
        weights = (weights * np.float64(alpha)).astype(np.float32)
    return edit.constant(np.ascontiguousarray(weights), value), True


def _times(edit: Editor, nodes: list[Node], value: str, factor: float) -> str:
    if factor == 1.0:
        return value
    array = edit.array(value)
    if array is not None:
        return edit.constant((array * np.float64(factor)).astype(np.float32), value)
    scaled = edit.value(edit.shape(value), value)
    number = edit.constant(np.float32(factor).reshape(()), value)
    nodes.append(Node("Mul", [value, number], [scaled]))
    return scaled


PATTERNS = {"Gemm": _gemm}
