"""The templates: which family lowers an operator, in which form, and what may be fused behind it.

A family is one module with a `TEMPLATES` dict, listed in `families()`. Whatever no template takes
goes to the generic schedule.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from tenantdl.compile.graph import Node
from tenantdl.compile.kernels.layout import Border

if TYPE_CHECKING:
    from tenantdl.compile.context import Context, Form, Group


@dataclass(frozen=True, slots=True)
class Template:
    """How one operator is lowered.

    form     the form of the output, or None when this template does not take the node. Called in
             topological order: `context.forms` knows the inputs.
    lower    emits the operators of a group.
    fuses    elementwise nodes may be fused behind it.
    border   the border that a packed first input needs, if any.
    """

    form: Callable[[Context, Node], Form | None]
    lower: Callable[[Context, Group], None]
    fuses: bool = False
    border: Callable[[Context, Node], Border] | None = None


@lru_cache(maxsize=1)
def templates() -> dict[str, tuple[Template, ...]]:
    """ONNX operator → templates in order of preference."""
    from tenantdl.compile.kernels import (
        attention,
        concat,
        conv,
        conv_narrow,
        conv_transpose,
        dense,
        elementwise,
        embedding,
        lrn,
        matmul,
        normalization,
        pool,
        reduce,
        resize,
        softmax,
        transpose,
        view,
    )

    table: dict[str, tuple[Template, ...]] = {}
    vision = (conv_narrow, conv, conv_transpose, pool, resize, lrn)
    transformers = (dense, matmul, attention, normalization, softmax, reduce, embedding)
    for family in (*vision, *transformers, concat, transpose, view, elementwise):
        for op, template in family.TEMPLATES.items():
            table[op] = (*table.get(op, ()), template)
    return table


def find(context: Context, node: Node) -> tuple[Template, Form] | None:
    """The first template that takes `node`, with the form of its output."""
    for template in templates().get(node.op, ()):
        form = template.form(context, node)
        if form is not None:
            return template, form
    return None
