"""GroupNormalization as InstanceNormalization of the groups, factors and offsets behind it.

Scale and bias are one a channel (the frontend repeats those of a group); they stay as Mul and Add.
"""

from __future__ import annotations

import numpy as np

from tenantdl.compile.graph import Node
from tenantdl.compile.rewrite.edit import Editor


def _group_norm(edit: Editor, node: Node) -> bool:
    x, out = node.inputs[0], node.outputs[0]
    shape = edit.shape(x)
    groups = int(node.attrs["num_groups"])
    scale, bias = (edit.array(name) for name in node.inputs[1:3])
    if scale is None or bias is None or not edit.is_float(x) or len(shape) < 3 or 0 in shape:
        return False
    grouped = (shape[0], groups, edit.type(x).size // (shape[0] * groups))
    rows, normal = edit.value(grouped, out), edit.value(grouped, out)
    whole, scaled = edit.value(shape, out), edit.value(shape, out)
    parts = [edit.constant(make(groups, np.float32), out) for make in (np.ones, np.zeros)]
    factor, offset = (
        edit.constant(part.reshape(-1, *[1] * (len(shape) - 2)), out) for part in (scale, bias)
    )
    attrs = {"epsilon": float(node.attrs.get("epsilon", 1e-5))}
    nodes = [
        Node("Reshape", [x, edit.ints(grouped, out)], [rows]),
        Node("InstanceNormalization", [rows, *parts], [normal], attrs),
        Node("Reshape", [normal, edit.ints(shape, out)], [whole]),
        Node("Mul", [whole, factor], [scaled]),
        Node("Add", [scaled, offset], [out]),
    ]
    edit.substitute(node, *nodes)
    return True


PATTERNS = {"GroupNormalization": _group_norm}
