"""The schedule of one fused kernel, whatever it computes: inline, parallelise, vectorise.

1. Elementwise producers are inlined where that does not repeat their work.
2. Sums of products of two operands are tiled with a packed panel (dense.py).
3. Another reduction whose result is contiguous along a spatial loop is tiled: rows x vectors of
   accumulators in registers, the reduction loops around them, the elementwise tail on the way out.
4. A reduction along the contiguous axis of its input keeps a vector of partial results.
5. Everything else runs over fused contiguous loops that LLVM vectorises.

Outer loops run in parallel where the work is worth a launch. A step that does not fit a kernel is
left out: every step is one that TVM proves to keep the meaning.
"""

from __future__ import annotations

from typing import Any

from tvm import s_tir

from tenantdl.compile.generic.access import (
    Axis,
    axes_of,
    contiguous_axis,
    depends,
    loads_of,
    size_of,
    volume,
)
from tenantdl.compile.generic.dense import dense
from tenantdl.compile.generic.tiling import (
    MISFITS,
    PARALLEL_WORK_MIN,
    absorb_tail,
    divisors,
    spread,
    tile,
    vectorise,
    work_of,
)
from tenantdl.compile.target import CpuTarget

_ACCUMULATOR_BYTES_MAX = 1024  # tirx's limit for a stack slot, and 16 vector registers
_ROWS_MAX = 6
_EXPRESSION_NODES_MAX = 4000
_INLINE_GROWTH_MAX = 2.0  # how much more often an inlined producer may be computed


def schedule(func: Any, target: CpuTarget) -> Any:
    """The function, scheduled for `target`; as it was where TVM's primitives do not fit it."""
    try:
        sch = s_tir.Schedule(func)
        _inline(sch)
        names = _names(sch)
    except MISFITS:
        return func
    for name in names:
        sch = _block(sch, name, target)
    return sch.mod["main"]


def _names(sch: Any) -> list[str]:
    """Blocks below the root, in order."""
    return [sch.get(block).name_hint for block in sch.get_child_blocks(sch.get_sblock("root"))]


def _inline(sch: Any) -> None:
    """Inlines spatial producers into their consumers, in order, if that repeats little work."""
    for name in _names(sch):
        block = sch.get_sblock(name)
        consumers = sch.get_consumers(block)
        if not consumers or any(axis.reduces for axis in axes_of(sch, block)):
            continue
        work = sum(volume(sch, consumer) for consumer in consumers)
        if work > _INLINE_GROWTH_MAX * volume(sch, block):
            continue
        if not all(_stays_small(sch.get(block), sch.get(consumer)) for consumer in consumers):
            continue
        try:
            sch.compute_inline(block)
        except MISFITS:
            continue


def _stays_small(producer: Any, consumer: Any) -> bool:
    """Whether inlining keeps the code within bounds: every load of the producer's result becomes a
    copy of its expression, and chains of polynomials multiply."""
    copies = loads_of(consumer, producer.writes[0].source)
    return copies * size_of(producer) + size_of(consumer) <= _EXPRESSION_NODES_MAX


def _block(sch: Any, name: str, target: CpuTarget) -> Any:
    """The schedule with one block treated, or as it was where that fails."""
    if name not in _names(sch):
        return sch  # it became part of another
    axes = axes_of(sch, sch.get_sblock(name))
    if not axes or len(sch.get_loops(sch.get_sblock(name))) != len(axes):
        return sch
    reduces = any(axis.reduces for axis in axes)
    for plan in (dense, _tiled, _partial_results, _rows) if reduces else (_spatial,):
        trial = sch.copy()
        try:
            if plan(trial, trial.get_sblock(name), axes, target):
                return trial
        except MISFITS:
            continue
    return sch


def _spatial(sch: Any, block: Any, axes: list[Axis], target: CpuTarget) -> bool:
    del axes, target
    spread(sch, block)
    return True


def _tiled(sch: Any, block: Any, axes: list[Axis], target: CpuTarget) -> bool:
    """Rows x vectors of accumulators inside the reduction loops."""
    statement = sch.get(block)
    column = contiguous_axis(statement.writes[0], axes, reduces=False)
    if column is None or axes[column].extent < 4:
        return False
    reads = [region for region in statement.reads if depends(region, axes[column])]
    if any(_is_dot(region, axes, column, target) for region in reads):
        return False
    itemsize = statement.writes[0].source.dtype.bits // 8
    width = _width(axes[column].extent, target.lanes * 4 * 4 // itemsize)
    row = _row_axis(axes, column, reads)
    height = 1
    if row is not None:
        limit = min(_ROWS_MAX, max(1, _ACCUMULATOR_BYTES_MAX // (width * itemsize)))
        height = divisors(axes[row].extent, limit)[-1]
    writer = None
    if width * height * itemsize <= _ACCUMULATOR_BYTES_MAX:
        writer = sch.cache_write(block, 0, "global")
        absorb_tail(sch, writer)
    anchor, tiles, reductions = tile(sch, block, axes, {column: width, row: height}, column)
    if writer is not None:
        sch.reverse_compute_at(writer, anchor, preserve_unit_loops=True)
    if work_of(axes) >= PARALLEL_WORK_MIN:
        sch.parallel(anchor)
    if height > 1:
        sch.unroll(tiles[0])
    lanes = target.lanes * 4 // itemsize
    vectorise(sch, tiles[-1], lanes)
    if writer is not None:
        vectorise(sch, sch.get_loops(writer)[-1], lanes)
    sch.decompose_reduction(block, reductions[0])
    return True


def _is_dot(region: Any, axes: list[Axis], column: int, target: CpuTarget) -> bool:
    """Whether an access is strided along the column and contiguous along a long reduction."""
    if contiguous_axis(region, axes, reduces=False) == column:
        return False
    along = contiguous_axis(region, axes, reduces=True)
    return along is not None and axes[along].extent >= target.lanes


def _width(extent: int, limit: int) -> int:
    """Elements of the contiguous axis in one tile: all of a short one, else a divisor."""
    if extent <= limit:
        return extent
    best = divisors(extent, limit)[-1]
    return best if best * 4 >= limit else extent


def _row_axis(axes: list[Axis], column: int, reads: list[Any]) -> int | None:
    """The spatial axis whose steps share the vectors that are read: the longest such."""
    free = [
        index
        for index, axis in enumerate(axes)
        if index != column
        and not axis.reduces
        and axis.extent > 1
        and not any(depends(region, axis) for region in reads)
    ]
    return max(free, key=lambda index: axes[index].extent, default=None)


def _partial_results(sch: Any, block: Any, axes: list[Axis], target: CpuTarget) -> bool:
    """A vector of partial results along the contiguous reduction axis, reduced at the end."""
    statement = sch.get(block)
    found = [contiguous_axis(region, axes, reduces=True) for region in statement.reads]
    along = next((index for index in found if index is not None), None)
    if along is None:
        return False
    extent = axes[along].extent
    lanes = next((n for n in (2 * target.lanes, target.lanes, 8, 4) if extent % n == 0), 0)
    if not lanes:
        return False
    _, vector = sch.split(sch.get_loops(block)[along], [None, lanes])
    partial = sch.rfactor(vector, sum(not axis.reduces for axis in axes))
    spatial = [
        loop
        for loop, axis in zip(sch.get_loops(block), axes_of(sch, block), strict=True)
        if not axis.reduces
    ]
    if spatial:
        anchor = sch.fuse(*spatial) if len(spatial) > 1 else spatial[0]
        sch.compute_at(partial, anchor, preserve_unit_loops=True)
        if work_of(axes) >= PARALLEL_WORK_MIN:
            sch.parallel(anchor)
    _vector_innermost(sch, partial)
    return True


def _vector_innermost(sch: Any, partial: Any) -> None:
    """Moves the vector loop of partial results inside the reduction and vectorises it."""
    axes = axes_of(sch, partial)
    own = list(sch.get_loops(partial))[-len(axes) :]
    lane = max(i for i, axis in enumerate(axes) if not axis.reduces)
    reductions = [loop for loop, axis in zip(own, axes, strict=True) if axis.reduces]
    sch.reorder(*reductions, own[lane])
    sch.vectorize(own[lane])
    sch.decompose_reduction(partial, reductions[0])


def _rows(sch: Any, block: Any, axes: list[Axis], target: CpuTarget) -> bool:
    """At least the outer spatial loops run in parallel."""
    del target
    spatial = []
    for loop, axis in zip(sch.get_loops(block), axes, strict=True):
        if axis.reduces:
            break
        spatial.append(loop)
    if spatial and work_of(axes) >= PARALLEL_WORK_MIN:
        sch.parallel(sch.fuse(*spatial) if len(spatial) > 1 else spatial[0])
    return True
