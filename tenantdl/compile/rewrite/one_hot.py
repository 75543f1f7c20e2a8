"""A product with one-hot rows is a Gather of the weights' rows, which needs no arithmetic."""

from __future__ import annotations

import numpy as np

from tenantdl.compile.graph import Node
from tenantdl.compile.rewrite.edit import Editor


def _matmul(edit: Editor, node: Node) -> bool:
    """MatMul(Cast(x == 0 … K−1), W): row x of W, and zeros where x is no row."""
    table = edit.array(node.inputs[1])
    cast = edit.inner(node.inputs[0], "Cast")
    equal = edit.inner(cast.inputs[0], "Equal") if cast is not None else None
    sides = edit.constant_side(equal) if equal is not None else None
    if sides is None or table is None or table.ndim != 2 or table.dtype != np.float32:
        return False
    x, (rows, columns) = sides[0], table.shape
    classes = edit.graph.constants[edit.name(sides[1])]
    kind, shape = edit.type(x).dtype, edit.shape(x)
    counted = classes.shape[-1:] == (rows,) and np.array_equal(classes.reshape(-1), np.arange(rows))
    if not counted or kind not in ("int32", "int64") or shape[-1:] != (1,):
        return False
    if edit.shape(node.outputs[0]) != (*shape[:-1], columns):
        return False
    # An index of −1 or K, and whatever lies beyond, names the row of zeros at the end.
    padded = edit.constant(np.concatenate([table, np.zeros((1, columns), np.float32)]), "rows")
    low, high = (edit.constant(np.array(bound, kind), "bound") for bound in (-1, rows))
    flat, index = edit.value(shape[:-1], x, kind), edit.value(shape[:-1], x, kind)
    edit.substitute(
        node,
        Node("Reshape", [x, edit.ints(shape[:-1], "shape")], [flat]),
        Node("Clip", [flat, low, high], [index]),
        Node("Gather", [padded, index], list(node.outputs), {"axis": 0}),
    )
    return True


PATTERNS = {"MatMul": _matmul}
