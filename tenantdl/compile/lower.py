"""Graph → program: groups in order, each through its template, runs of the rest generically."""

from __future__ import annotations

from tenantdl.compile.context import Context
from tenantdl.compile.fusion import plan_groups
from tenantdl.compile.graph import Graph, Node
from tenantdl.compile.kernels.chain_lower import merge_chains
from tenantdl.compile.kernels.convert import copy_kernel
from tenantdl.compile.kernels.layout import NO_BORDER
from tenantdl.compile.kernels.squeeze import merge_squeezes
from tenantdl.compile.memory import resolve
from tenantdl.compile.operator import Program
from tenantdl.compile.schedules import Schedules
from tenantdl.compile.target import CpuTarget


def lower(
    graph: Graph, target: CpuTarget, cores: int, schedules: Schedules | None = None
) -> Program:
    """Operators and buffers for `graph` on `target`, schedules chosen for `cores` cores.

    Raises UserError naming the node that nothing can run.
    """
    context = Context(graph, target, cores, schedules)
    planned = merge_squeezes(context, plan_groups(context))
    planned = merge_chains(context, planned)
    _inherit_borders(context)
    pending: list[Node] = []
    for entry in planned:
        if entry.template is None:
            pending.append(entry.group.anchor)
            continue
        _flush(context, pending)
        entry.template.lower(context, entry.group)
    _flush(context, pending)
    _finish_outputs(context)
    return context.program


def _inherit_borders(context: Context) -> None:
    """A value inside a concatenation has the border of the whole, which serves all readers; a
    packed value has the borders that its views need."""
    for view, value in reversed(context.views.items()):
        border = context.borders.get(view, NO_BORDER)
        if context.layout_of(view).height != context.layout_of(value).height:
            border = border.turned()
        context.borders[value] = context.borders.get(value, NO_BORDER).union(border)
    for value in context.placements:
        root = value
        while root in context.placements:
            root = context.placements[root][0]
        border = context.borders.get(value, NO_BORDER)
        context.borders[root] = context.borders.get(root, NO_BORDER).union(border)
    # Another lowering of the same plan writes into the same buffers.
    for value, border in context.schedules.borders.items():
        context.borders[value] = context.borders.get(value, NO_BORDER).union(border)
    context.schedules.borders = dict(context.borders)


def _flush(context: Context, pending: list[Node]) -> None:
    """Lower a run of consecutive nodes that no template took, so that they fuse."""
    if not pending:
        return
    from tenantdl.compile.generic import lower_generic

    nodes = list(pending)
    pending.clear()
    made = {name for node in nodes for name in node.outputs}
    for node in nodes:
        for name in node.inputs:
            if name and name not in made and name not in context.graph.constants:
                context.plain(name)
    lowered = lower_generic(context.graph, nodes, context.target)
    context.adopt(lowered)


def _finish_outputs(context: Context) -> None:
    """Every output gets row-major storage of its own in the arena."""
    taken: set[str] = set(context.graph.inputs)
    for position, value in enumerate(context.graph.outputs):
        name = context.plain(value)
        root, _ = resolve(context.program, name)
        if root in context.program.constants or root in taken or name != value:
            kind = context.type(value)
            copy = f"{value}#output{position}"
            context.declare(copy, kind)
            kernel = copy_kernel(kind.shape, kind.dtype)
            context.emit(f"copy {value}", "layout", kernel, (name, copy))
            name = copy
        taken.add(resolve(context.program, name)[0])
        context.program.outputs[position] = name
