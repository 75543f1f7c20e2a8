"""Operators that only rename memory: reshapes. No kernel runs.

A packed value stays packed if images and channels stay what they are and pixels keep their order:
a column becomes a row or loses its dimension of one.
"""

from __future__ import annotations

from tenantdl.compile.context import Context, Form, Group
from tenantdl.compile.graph import Node
from tenantdl.compile.kernels.registry import Template


def _form(context: Context, node: Node) -> Form | None:
    source = node.inputs[0]
    if context.array(source) is not None or context.type(source).size == 0:
        return None
    if context.forms.get(source) != "packed" or not _line(context, node):
        return "plain"
    context.views[node.outputs[0]] = source
    return "packed"


def _line(context: Context, node: Node) -> bool:
    """Whether both sides are images of one row or column, alike but for dimensions of one."""
    shapes = [context.type(name).shape for name in (node.inputs[0], node.outputs[0])]
    ranks = all(len(shape) in (3, 4) for shape in shapes)
    long = [[extent for extent in shape[2:] if extent != 1] for shape in shapes]
    return ranks and shapes[0][:2] == shapes[1][:2] and long[0] == long[1] and len(long[0]) == 1


def _lower(context: Context, group: Group) -> None:
    source = group.anchor.inputs[0]
    if group.output in context.views:
        name, layout = context.packed(source)
        turn = layout.height != context.layout_of(group.output).height
        if layout.is_line or not turn:
            context.alias_packed(group.output, name, layout.turned() if turn else layout)
            return
    context.alias_plain(group.output, context.plain(source))


_TEMPLATE = Template(_form, _lower)
TEMPLATES = {
    op: _TEMPLATE for op in ("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Dropout")
}
