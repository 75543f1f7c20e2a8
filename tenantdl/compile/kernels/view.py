"""Operators that only rename memory: reshapes. No kernel runs."""

from __future__ import annotations

from tenantdl.compile.context import Context, Form, Group
from tenantdl.compile.graph import Node
from tenantdl.compile.kernels.registry import Template


def _form(context: Context, node: Node) -> Form | None:
    if context.array(node.inputs[0]) is not None or context.type(node.inputs[0]).size == 0:
        return None
    return "plain"


def _lower(context: Context, group: Group) -> None:
    context.alias_plain(group.output, context.plain(group.anchor.inputs[0]))


_TEMPLATE = Template(_form, _lower)
TEMPLATES = {
    op: _TEMPLATE for op in ("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Dropout")
}
