"""BatchNormalization in inference is Mul and Add by constants of the channels."""

from __future__ import annotations

import numpy as np

from tenantdl.compile.graph import Node
from tenantdl.compile.rewrite.edit import Editor


def _batch_norm(edit: Editor, node: Node) -> bool:
    x, out = node.inputs[0], node.outputs[0]
    arrays = [edit.array(name) for name in node.inputs[1:5]]
    if any(array is None for array in arrays) or not edit.is_float(x):
        return False
    if len([name for name in node.outputs if name]) != 1:
        return False
    scale, bias, mean, variance = (np.float64(array) for array in arrays if array is not None)
    factor = scale / np.sqrt(variance + float(node.attrs.get("epsilon", 1e-5)))
    offset = bias - mean * factor
    shape = (-1, *[1] * (len(edit.shape(x)) - 2))
    scaled = edit.value(edit.shape(out), out)
    names = [
        edit.constant(array.astype(np.float32).reshape(shape), out) for array in (factor, offset)
    ]
    edit.substitute(
        node, Node("Mul", [x, names[0]], [scaled]), Node("Add", [scaled, names[1]], [out])
    )
    return True


PATTERNS = {"BatchNormalization": _batch_norm}
