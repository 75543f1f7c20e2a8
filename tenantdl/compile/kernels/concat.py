"""Concatenation without a copy: inputs are produced in their place of the result.

Along the channels of packed values whose channel counts are whole blocks (the last may be ragged).
What was already placed elsewhere, or is plain, is copied.
"""

from __future__ import annotations

from tenantdl.compile.context import Context, Form, Group
from tenantdl.compile.graph import Node
from tenantdl.compile.kernels.elementwise import packed_kernel
from tenantdl.compile.kernels.epilogue import EMPTY
from tenantdl.compile.kernels.registry import Template


def _form(context: Context, node: Node) -> Form | None:
    kind = context.type(node.outputs[0])
    rank = len(kind.shape)
    axis = int(node.attrs.get("axis", 0)) % max(rank, 1)
    if rank not in (3, 4) or axis != 1 or kind.dtype != "float32" or kind.size == 0:
        return None
    names = [name for name in node.inputs if context.type(name).size]
    lanes = context.target.lanes
    if any(context.type(name).shape[1] % lanes for name in names[:-1]):
        return None
    if not any(context.forms.get(name) == "packed" for name in names):
        return None
    _place(context, node, names)
    return "packed"


def _place(context: Context, node: Node, names: list[str]) -> None:
    """Remember where each input goes, if it is packed and not yet placed."""
    block = 0
    for name in names:
        free = name not in context.placements and names.count(name) == 1
        if free and context.forms.get(name) == "packed" and name not in context.graph.inputs:
            context.placements[name] = (node.outputs[0], block)
        block += -(-context.type(name).shape[1] // context.target.lanes)


def _lower(context: Context, group: Group) -> None:
    node = group.anchor
    name, out = context.packed_root(group.output)
    block = 0
    for value in node.inputs:
        if not context.type(value).size:
            continue
        source, layout = context.packed(value)
        place = context.layout_of(value, out.border, out.first_block + block, out.shape[1])
        if source != name or layout != place:
            kernel = packed_kernel(layout, place, EMPTY)
            context.emit(f"copy {value}", "concat", kernel, (source, name))
        block += layout.blocks


TEMPLATES = {"Concat": Template(_form, _lower)}
