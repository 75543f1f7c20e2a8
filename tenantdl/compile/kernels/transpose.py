"""Transposes: between packed channels and channels last by vector copies, else by squares of
vectors turned in registers. A Transpose of a row-major value waits until somebody reads it: who
wants it packed may spare the turn.

Others than [a][b][c] → [a][c][b] (dimensions of one aside) go to the generic schedule.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any

from tvm.script.ir_builder import tirx as T

from tenantdl.compile.context import Context, Form, Group
from tenantdl.compile.graph import Node
from tenantdl.compile.kernels.convert import last_kernel
from tenantdl.compile.kernels.emit import Emitter, Index
from tenantdl.compile.kernels.registry import Template
from tenantdl.compile.kernels.rows import KERNELS_KEPT, spread
from tenantdl.compile.kernels.tiles import transposed
from tenantdl.compile.operator import Kernel


def perm_of(node: Node, rank: int) -> tuple[int, ...]:
    """The node's permutation."""
    return tuple(int(axis) for axis in node.attrs.get("perm", range(rank)[::-1]))


def turn(shape: Sequence[int], perm: Sequence[int]) -> tuple[int, int, int] | None:
    """(a, b, c) if the permutation of `shape` is [a][b][c] → [a][c][b], dimensions of one aside."""
    order = [axis for axis in perm if shape[axis] != 1]
    long = sorted(order)
    rank = [long.index(axis) for axis in order]
    breaks = [i for i, (a, b) in enumerate(pairwise(rank), 1) if b != a + 1]
    parts = [order[i:j] for i, j in pairwise([0, *breaks, len(order)])]
    if len(parts) == 2:
        parts = [[], *parts]
    if len(parts) != 3 or (parts[0] and parts[0][0] != long[0]) or parts[1] < parts[2]:
        return None
    a, c, b = (math.prod(shape[axis] for axis in part) for part in parts)
    return a, b, c


def channels_last(shape: Sequence[int], order: Sequence[int]) -> bool:
    """Whether the axes of a value of `shape` (images × channels × …), listed in the order of
    memory, have channels last and all others as they were."""
    long = [axis for axis in order if shape[axis] != 1]
    return 1 in long and long[-1] == 1 and long[:-1] == sorted(long[:-1])


@lru_cache(maxsize=KERNELS_KEPT)
def turn_kernel(outer: int, rows: int, columns: int, lanes: int) -> Kernel:
    """Parameters: data [outer][rows][columns], output [outer][columns][rows]."""
    digest = hashlib.sha256(repr((outer, rows, columns, lanes)).encode()).hexdigest()[:12]
    strips, rest = divmod(rows, lanes)
    with Emitter(f"turn_{digest}", lanes) as e:
        data, out = e.param("data", (outer, rows, columns)), e.param("out", (outer, columns, rows))
        tasks = outer * (strips + bool(rest))
        with spread(e, tasks, outer * rows * columns) as task:
            n, strip = task // (strips + bool(rest)), task % (strips + bool(rest))
            if not rest:
                _strip(e, data, out, n, strip * lanes)
            elif not strips:
                _scalars(e, data, out, n, 0, rest, 0)
            else:
                with e.branches(strip < strips) as (whole, partial):
                    with whole:
                        _strip(e, data, out, n, strip * lanes)
                    with partial:
                        _scalars(e, data, out, n, strips * lanes, rest, 0)
    return e.kernel()


def _strip(e: Emitter, data: Any, out: Any, n: Index, row: Index) -> None:
    """`lanes` rows to as many columns."""
    columns = int(data.shape[2])
    squares = columns // e.lanes
    with e.serial(squares) as square:
        column = square * e.lanes
        vectors = [e.bind(e.load(data, (n, row + i, column))) for i in range(e.lanes)]
        for i, vector in enumerate(transposed(e, vectors)):
            e.store(out, (n, column + i, row), vector)
    _scalars(e, data, out, n, row, e.lanes, squares * e.lanes)


def _scalars(e: Emitter, data: Any, out: Any, n: Index, row: Index, rows: int, first: int) -> None:
    """Columns from `first` on, element by element."""
    columns = int(data.shape[2])
    with e.serial(columns - first) as column, e.serial(rows) as i:
        value = data[n, row + i, first + column]
        T.buffer_store(out, value, [n, first + column, row + i])


def _form(context: Context, node: Node) -> Form | None:
    source = node.inputs[0]
    kind = context.type(source)
    if kind.dtype != "float32" or not kind.size or context.array(source) is not None:
        return None
    perm = perm_of(node, len(kind.shape))
    if context.forms.get(source) == "packed":
        return "plain" if channels_last(kind.shape, perm) else None
    return "plain" if turn(kind.shape, perm) is not None else None


def _lower(context: Context, group: Group) -> None:
    node = group.anchor
    source = node.inputs[0]
    shape = context.type(source).shape
    perm = perm_of(node, len(shape))
    if context.forms.get(source) == "packed" and channels_last(shape, perm):
        name, layout = context.packed(source)
        out = context.new_plain(group.output)
        kernel = last_kernel("unpack", layout, context.type(group.output).shape)
        context.emit(group.name, "layout", kernel, (name, out))
        return
    context.defer(group.output, lambda packed: _carry_out(context, group, packed))


def _carry_out(context: Context, group: Group, packed: bool) -> bool:
    """Write the deferred value, packed or row-major; False if it cannot be packed from here."""
    source = group.anchor.inputs[0]
    shape = context.type(source).shape
    perm = perm_of(group.anchor, len(shape))
    if packed:
        target = context.type(group.output).shape
        inverse = [perm.index(axis) for axis in range(len(perm))]
        if len(target) not in (3, 4) or not channels_last(target, inverse):
            return False
        name, layout = context.new_packed(group.output)
        kernel = last_kernel("pack", layout, shape)
        context.emit(group.name, "layout", kernel, (context.plain(source), name))
        return True
    found = turn(shape, perm)
    assert found is not None
    kernel = turn_kernel(*found, context.target.lanes)
    name, out = context.plain(source), context.new_plain(group.output)
    context.emit(group.name, "layout", kernel, (name, out))
    return True


TEMPLATES = {"Transpose": Template(_form, _lower)}
