"""Concatenation without a copy: inputs are produced in their place of the result.

Along the channels of packed values whose channel counts are whole blocks (the last may be ragged).
What was already placed elsewhere, or is plain, is copied; where counts are not whole blocks, lanes
are shifted into their places.
"""

from __future__ import annotations

import hashlib

from tenantdl.compile.context import Context, Form, Group
from tenantdl.compile.graph import Node
from tenantdl.compile.kernels.elementwise import packed_kernel
from tenantdl.compile.kernels.emit import Emitter
from tenantdl.compile.kernels.epilogue import EMPTY
from tenantdl.compile.kernels.layout import Packed
from tenantdl.compile.kernels.registry import Template
from tenantdl.compile.operator import Kernel


def _form(context: Context, node: Node) -> Form | None:
    kind = context.type(node.outputs[0])
    rank = len(kind.shape)
    axis = int(node.attrs.get("axis", 0)) % max(rank, 1)
    if rank not in (3, 4) or axis != 1 or kind.dtype != "float32" or kind.size == 0:
        return None
    names = [name for name in node.inputs if context.type(name).size]
    if not any(context.forms.get(name) == "packed" for name in names):
        return None
    if _whole_blocks(context, names):
        _place(context, node, names)
    return "packed"


def _whole_blocks(context: Context, names: list[str]) -> bool:
    """Every input starts at a block of the result."""
    return all(context.type(name).shape[1] % context.target.lanes == 0 for name in names[:-1])


def _place(context: Context, node: Node, names: list[str]) -> None:
    """Remember where each input goes, if it is packed and not yet placed."""
    block = 0
    for name in names:
        free = name not in context.placements and names.count(name) == 1
        if free and context.forms.get(name) == "packed" and name not in context.graph.inputs:
            context.placements[name] = (node.outputs[0], block)
        block += -(-context.type(name).shape[1] // context.target.lanes)


def _lower(context: Context, group: Group) -> None:
    names = [name for name in group.anchor.inputs if context.type(name).size]
    if not _whole_blocks(context, names):
        sources = [context.packed(value) for value in names]
        target, out = context.new_packed(group.output)
        kernel = interleave_kernel([layout for _, layout in sources], out)
        context.emit(group.name, "concat", kernel, (*(name for name, _ in sources), target))
        return
    name, out = context.packed_root(group.output)
    block = 0
    for value in names:
        source, layout = context.packed(value)
        place = context.layout_of(value, out.border, out.first_block + block, out.shape[1])
        if source != name or layout != place:
            kernel = packed_kernel(layout, place, EMPTY)
            context.emit(f"copy {value}", "concat", kernel, (source, name))
        block += layout.blocks


def interleave_kernel(sources: list[Packed], out: Packed) -> Kernel:
    """Inputs that do not fill their last block: lanes are copied to where they belong.

    Parameters: the packed inputs, the packed output.
    """
    digest = hashlib.sha256(repr((sources, out)).encode()).hexdigest()[:12]
    with Emitter(f"concat_{digest}", out.lanes) as e:
        buffers = [e.param(f"data{i}", layout.shape) for i, layout in enumerate(sources)]
        target = e.param("out", out.shape)
        with e.parallel(out.batch * out.height) as task, e.serial(out.width) as x:
            n, y = task // out.height, task % out.height
            for source, block, lane, place, count in lane_pieces(sources, out.lanes):
                read = sources[source].index(n, block, y, x, lane)
                value = e.load(buffers[source], read, count)
                to = out.index(n, place // out.lanes, y, x, place % out.lanes)
                e.store(target, to, value, count)
            if rest := -out.channels % out.lanes:  # whatever was there before may be no number
                to = out.index(n, out.blocks - 1, y, x, out.lanes - rest)
                e.store(target, to, e.splat(0.0, rest), rest)
    return e.kernel()


def lane_pieces(sources: list[Packed], lanes: int) -> list[tuple[int, int, int, int, int]]:
    """(source, its block, its lane, output channel, length): runs of channels within one block on
    both sides."""
    pieces, place = [], 0
    for number, layout in enumerate(sources):
        channel = 0
        while channel < layout.channels:
            room = min(lanes - channel % lanes, lanes - place % lanes, layout.channels - channel)
            pieces.append((number, channel // lanes, channel % lanes, place, room))
            channel += room
            place += room
    return pieces


TEMPLATES = {"Concat": Template(_form, _lower)}
