"""The schedule of products summed over two operands: matrix products, convolutions, in any layout.

One operand, the panel, is copied so that an axis that only it has, the column, is contiguous: in
blocks of [column / width][the rest][width]. A tile of rows x width accumulators stays in registers
while the reduction runs; each step loads a vector of the panel and broadcasts scalars of the other
operand. The copy costs a pass over the panel and serves every row.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from tenantdl.compile.generic.access import Axis, contiguous_axis, depends, dimension_axes
from tenantdl.compile.generic.tiling import (
    absorb_tail,
    divisors,
    tile,
    vector_width,
    vectorise,
)
from tenantdl.compile.target import CpuTarget

_REDUCTION_MIN = 8
_REUSE_MIN = 16  # rows that share the panel: below, the copy does not pay
_STACK_BYTES_MAX = 1024  # tirx's limit for a stack slot
_VECTORS_MAX = 24  # registers for accumulators
_STORE_BONUS = 1.3  # for a column along which the result is stored as vectors


@dataclass(frozen=True, slots=True)
class _Plan:
    """Which read is the panel, and the tile: axes by number, sizes in elements."""

    panel: int
    dimension: int  # of the panel, along which the column runs
    column: int
    row: int
    width: int
    height: int


def dense(sch: Any, block: Any, axes: list[Axis], target: CpuTarget) -> bool:
    """Schedules a reduction over two operands; False where it is none or too small."""
    statement = sch.get(block)
    plan = _plan(statement, axes, target)
    if plan is None:
        return False
    dims = len(statement.reads[plan.panel].region)
    writes = dimension_axes(statement.writes[0], axes)
    packed = sch.cache_read(block, plan.panel, "global")
    d, width = plan.dimension, plan.width

    def panels(*index: Any) -> list[Any]:
        rest = [index[k] for k in range(dims) if k != d]
        return [index[d] // width, *rest, index[d] % width]

    sch.transform_layout(block, ("read", plan.panel), panels)
    lanes = target.lanes * 4 // (statement.writes[0].source.dtype.bits // 8)
    _spread_copy(sch, packed, d, width, lanes if d == dims - 1 else 0)
    writer = sch.cache_write(block, 0, "global")
    absorb_tail(sch, writer)
    if writes is None or writes[-1] != plan.column:
        place = writes.index(plan.column) if writes is not None else 0

        def column_last(*index: Any) -> list[Any]:
            return [*(v for k, v in enumerate(index) if k != place), index[place]]

        sch.transform_layout(block, ("write", 0), column_last)
    sizes: dict[int | None, int] = {plan.column: plan.width, plan.row: plan.height}
    anchor, tiles, reductions = tile(sch, block, axes, sizes, plan.column)
    sch.reverse_compute_at(writer, anchor, preserve_unit_loops=True)
    sch.parallel(anchor)
    for loop in tiles[:-1]:
        sch.unroll(loop)
    vectorise(sch, tiles[-1], lanes)
    if writes is not None and writes[-1] == plan.column:
        vectorise(sch, sch.get_loops(writer)[-1], lanes)
    sch.decompose_reduction(block, reductions[0])
    return True


def _spread_copy(sch: Any, packed: Any, dimension: int, width: int, lanes: int) -> None:
    """Writes the panel in order, so that no index has to be divided; vectors where its source is
    contiguous too (`lanes` > 0)."""
    loops = list(sch.get_loops(packed))
    around, inner = sch.split(loops[dimension], [None, width])
    others = [loop for k, loop in enumerate(loops) if k != dimension]
    sch.reorder(around, *others, inner)
    sch.parallel(sch.fuse(around, others[0]) if others else around)
    if lanes:
        vectorise(sch, inner, lanes)


def _plan(statement: Any, axes: list[Axis], target: CpuTarget) -> _Plan | None:
    reads = list(statement.reads)
    steps = math.prod(axis.extent for axis in axes if axis.reduces)
    if len(reads) != 2 or steps < _REDUCTION_MIN:
        return None
    used = [_used(region, axes) for region in reads]
    writes = dimension_axes(statement.writes[0], axes)
    contiguous = contiguous_axis(statement.writes[0], axes, reduces=False)
    if writes is None:
        return None
    plans: list[tuple[float, _Plan]] = []
    for panel in (0, 1):
        places = dimension_axes(reads[panel], axes)
        if places is None:
            continue  # strides or offsets: not a panel that can be copied
        own = [a for a in used[panel] - used[1 - panel] if not axes[a].reduces]
        rows = [a for a in used[1 - panel] - used[panel] if not axes[a].reduces]
        if math.prod(axes[a].extent for a in rows) < _REUSE_MIN:
            continue
        row = max(rows, key=lambda a: (axes[a].extent, a))
        for column in own:
            size = _sizes(axes[column].extent, axes[row].extent, statement, target)
            if size is not None:
                plan = _Plan(panel, places.index(column), column, row, size[1], size[2])
                plans.append((size[0] * (_STORE_BONUS if column == contiguous else 1.0), plan))
    return max(plans, key=lambda item: item[0])[1] if plans else None


def _used(region: Any, axes: list[Axis]) -> set[int]:
    """Axes that an access moves with."""
    return {number for number, axis in enumerate(axes) if depends(region, axis)}


def _sizes(
    columns: int, rows: int, statement: Any, target: CpuTarget
) -> tuple[float, int, int] | None:
    """(multiplications a load, width, height) of the best tile that fits the registers."""
    itemsize = statement.writes[0].source.dtype.bits // 8
    lanes = target.lanes * 4 // itemsize
    best: tuple[float, int, int] | None = None
    for width in divisors(columns, 4 * lanes):
        lane = vector_width(width, lanes)
        if lane < 4:
            continue
        vectors = width // lane
        for height in divisors(rows, 14):
            if vectors * height > _VECTORS_MAX or width * height * itemsize > _STACK_BYTES_MAX:
                continue
            score = lane / lanes * vectors * height / (vectors + height)
            if best is None or score > best[0]:
                best = (score, width, height)
    return best
