"""The schedule of one fused kernel, whatever it computes: inline, parallelise, vectorise.

1. Elementwise producers are inlined where that does not repeat their work.
2. A reduction whose result is contiguous along a spatial loop is tiled: rows x vectors of
   accumulators in registers, the reduction loops around them, the elementwise tail on the way out.
3. A reduction along the contiguous axis of its input keeps a vector of partial results.
4. Everything else runs over fused contiguous loops that LLVM vectorises.

Outer loops run in parallel where the work is worth a launch. A step that does not fit a kernel is
left out: every step is one that TVM proves to keep the meaning.
"""

from __future__ import annotations

import math
from typing import Any

from tvm import s_tir

from tenantdl.compile.generic.access import Axis, axes_of, contiguous_axis, depends, volume
from tenantdl.compile.target import CpuTarget

_PARALLEL_WORK_MIN = 16384  # scalar operations that are worth waking a second thread
_INNER_EXTENT_MIN = 64
_ACCUMULATOR_BYTES_MAX = 1024  # tirx's limit for a stack slot, and 16 vector registers
_ROWS_MAX = 6
_INLINE_GROWTH_MAX = 2.0  # how much more often an inlined producer may be computed


def schedule(func: Any, target: CpuTarget) -> Any:
    """The function, scheduled for `target`; as it was where TVM's primitives do not fit it."""
    try:
        sch = s_tir.Schedule(func)
        _inline(sch)
        names = _names(sch)
    except _MISFITS:
        return func
    for name in names:
        sch = _block(sch, name, target)
    return sch.mod["main"]


# What the primitives raise where they do not apply.
_MISFITS = (s_tir.ScheduleError, RuntimeError, ValueError, TypeError, IndexError)


def _names(sch: Any) -> list[str]:
    """Blocks below the root, in order."""
    return [sch.get(block).name_hint for block in sch.get_child_blocks(sch.get_sblock("root"))]


def _inline(sch: Any) -> None:
    """Inlines spatial producers into their consumers, last first, if that repeats little work."""
    for name in reversed(_names(sch)):
        block = sch.get_sblock(name)
        consumers = sch.get_consumers(block)
        if not consumers or any(axis.reduces for axis in axes_of(sch, block)):
            continue
        work = sum(volume(sch, consumer) for consumer in consumers)
        if work <= _INLINE_GROWTH_MAX * volume(sch, block):
            try:
                sch.compute_inline(block)
            except _MISFITS:
                continue


def _block(sch: Any, name: str, target: CpuTarget) -> Any:
    """The schedule with one block treated, or as it was where that fails."""
    if name not in _names(sch):
        return sch  # it became part of another
    trial = sch.copy()
    block = trial.get_sblock(name)
    axes = axes_of(trial, block)
    if not axes or len(trial.get_loops(block)) != len(axes):
        return sch
    reduces = any(axis.reduces for axis in axes)
    for plan in (_tiled, _partial_results, _rows) if reduces else (_spatial,):
        try:
            if plan(trial, block, axes, target):
                return trial
        except _MISFITS:
            pass
        trial = sch.copy()
        block = trial.get_sblock(name)
    return sch


def _spatial(sch: Any, block: Any, axes: list[Axis], target: CpuTarget) -> bool:
    """Contiguous loops fused until the innermost is long; the others fused and parallel."""
    del axes, target
    loops = list(sch.get_loops(block))
    work = volume(sch, block)
    inner = loops.pop()
    while loops and _extent(sch, inner) < _INNER_EXTENT_MIN:
        inner = sch.fuse(loops.pop(), inner)
    if work < _PARALLEL_WORK_MIN:
        return True
    if loops:
        sch.parallel(sch.fuse(*loops) if len(loops) > 1 else loops[0])
        return True
    chunk = divisor(_extent(sch, inner), _PARALLEL_WORK_MIN // 2)
    if chunk >= _INNER_EXTENT_MIN:
        outer, _ = sch.split(inner, [None, chunk])
        sch.parallel(outer)
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
        height = divisor(axes[row].extent, limit)
    _accumulate_in_tile(sch, block, axes, column, width, row, height, target)
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
    best = divisor(extent, limit)
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


def _accumulate_in_tile(
    sch: Any,
    block: Any,
    axes: list[Axis],
    column: int,
    width: int,
    row: int | None,
    height: int,
    target: CpuTarget,
) -> None:
    itemsize = sch.get(block).writes[0].source.dtype.bits // 8
    writer = None
    if width * height * itemsize <= _ACCUMULATOR_BYTES_MAX:
        writer = sch.cache_write(block, 0, "global")
        _absorb_tail(sch, writer)
    anchor, tiles, reductions = _tile(sch, block, axes, {column: width, row: height}, column)
    if writer is not None:
        sch.reverse_compute_at(writer, anchor, preserve_unit_loops=True)
    if volume_of(axes) >= _PARALLEL_WORK_MIN:
        sch.parallel(anchor)
    if height > 1:
        sch.unroll(tiles[0])
    if width <= 4 * target.lanes:
        sch.vectorize(tiles[-1])
        if writer is not None:
            sch.vectorize(sch.get_loops(writer)[-1])
    sch.decompose_reduction(block, reductions[0])


def _tile(
    sch: Any, block: Any, axes: list[Axis], sizes: dict[int | None, int], column: int
) -> tuple[Any, list[Any], list[Any]]:
    """Splits and reorders the loops: fused outer ones, reductions, tiles with the column last.

    The column's outer loop comes before the row's, so that a panel of the operand that is read
    along the column stays in cache while all rows pass.
    """
    loops = list(sch.get_loops(block))
    outer: list[Any] = []
    rows: list[Any] = []
    columns: list[Any] = []
    tiles: list[Any] = []
    last: list[Any] = []
    reductions: list[Any] = []
    for index, (loop, axis) in enumerate(zip(loops, axes, strict=True)):
        if axis.reduces:
            reductions.append(loop)
        elif sizes.get(index, 1) == 1:
            outer.append(loop)
        else:
            around, tile = sch.split(loop, [None, sizes[index]])
            (columns if index == column else rows).append(around)
            (last if index == column else tiles).append(tile)
    outer = [*outer, *columns, *rows]
    tiles = [*tiles, *last]
    sch.reorder(*outer, *reductions, *tiles)
    return (sch.fuse(*outer) if len(outer) > 1 else outer[0]), tiles, reductions


def _absorb_tail(sch: Any, writer: Any) -> None:
    """Computes the elementwise consumer of a result where the result leaves its registers."""
    consumers = sch.get_consumers(writer)
    if len(consumers) == 1:
        try:
            sch.reverse_compute_inline(consumers[0])
        except _MISFITS:
            return


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
    loops = list(sch.get_loops(block))
    _, vector = sch.split(loops[along], [None, lanes])
    partial = sch.rfactor(vector, sum(not axis.reduces for axis in axes))
    spatial = [
        loop
        for loop, axis in zip(sch.get_loops(block), axes_of(sch, block), strict=True)
        if not axis.reduces
    ]
    steps = sch.get_loops(partial)
    order = axes_of(sch, partial)
    vectors = steps[sum(not axis.reduces for axis in order) - 1 : len(steps)]
    del vectors
    if spatial:
        anchor = sch.fuse(*spatial) if len(spatial) > 1 else spatial[0]
        sch.compute_at(partial, anchor, preserve_unit_loops=True)
        if volume_of(axes) >= _PARALLEL_WORK_MIN:
            sch.parallel(anchor)
    _vector_innermost(sch, partial)
    return True


def _vector_innermost(sch: Any, partial: Any) -> None:
    """Moves the vector loop of partial results inside the reduction and vectorises it."""
    loops = list(sch.get_loops(partial))
    axes = axes_of(sch, partial)
    own = loops[-len(axes) :]
    lane = max(i for i, axis in enumerate(axes) if not axis.reduces)
    reductions = [loop for loop, axis in zip(own, axes, strict=True) if axis.reduces]
    sch.reorder(*reductions, own[lane])
    sch.vectorize(own[lane])
    sch.decompose_reduction(partial, reductions[0])


def _rows(sch: Any, block: Any, axes: list[Axis], target: CpuTarget) -> bool:
    """At least the outer spatial loops run in parallel."""
    del target
    loops = sch.get_loops(block)
    spatial = []
    for loop, axis in zip(loops, axes, strict=True):
        if axis.reduces:
            break
        spatial.append(loop)
    if spatial and volume_of(axes) >= _PARALLEL_WORK_MIN:
        sch.parallel(sch.fuse(*spatial) if len(spatial) > 1 else spatial[0])
    return True


def divisor(extent: int, limit: int) -> int:
    """The largest divisor of `extent` up to `limit` (at least 1)."""
    best = 1
    for candidate in range(1, math.isqrt(extent) + 1):
        if extent % candidate == 0:
            for found in (candidate, extent // candidate):
                if best < found <= limit:
                    best = found
    return best


def volume_of(axes: list[Axis]) -> int:
    """Steps of all loops together."""
    return math.prod(axis.extent for axis in axes)


def _extent(sch: Any, loop: Any) -> int:
    return int(sch.get(loop).extent)
