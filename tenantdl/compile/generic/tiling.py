"""Steps that the schedules share."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from tvm import s_tir
from tvm.error import InternalError

from tenantdl.compile.generic.access import Axis, volume

PARALLEL_WORK_MIN = 16384  # scalar operations that are worth waking a second thread
_INNER_EXTENT_MIN = 64
_UNROLLED_MAX = 16

# What the primitives raise where they do not apply.
MISFITS = (s_tir.ScheduleError, InternalError)


def spread(sch: Any, block: Any) -> None:
    """For blocks without reductions: contiguous loops fused until the innermost is long enough for
    LLVM to vectorise; the others fused and parallel."""
    loops = list(sch.get_loops(block))
    work = volume(sch, block)
    inner = loops.pop()
    while loops and _extent(sch, inner) < _INNER_EXTENT_MIN:
        inner = sch.fuse(loops.pop(), inner)
    if work < PARALLEL_WORK_MIN:
        return
    if loops:
        sch.parallel(sch.fuse(*loops) if len(loops) > 1 else loops[0])
        return
    chunk = max(divisors(_extent(sch, inner), PARALLEL_WORK_MIN // 2))
    if chunk >= _INNER_EXTENT_MIN:
        outer, _ = sch.split(inner, [None, chunk])
        sch.parallel(outer)


def tile(
    sch: Any, block: Any, axes: list[Axis], sizes: Mapping[int | None, int], column: int
) -> tuple[Any, list[Any], list[Any]]:
    """Splits and reorders the loops of a reduction: outer ones (returned fused), reductions, tiles
    with the column last.

    The column's outer loop comes before the row's, so that a panel of the operand that is read
    along the column stays in cache while all rows pass.
    """
    outer: list[Any] = []
    rows: list[Any] = []
    columns: list[Any] = []
    tiles: list[Any] = []
    last: list[Any] = []
    reductions: list[Any] = []
    for index, (loop, axis) in enumerate(zip(list(sch.get_loops(block)), axes, strict=True)):
        if axis.reduces:
            reductions.append(loop)
        elif sizes.get(index, 1) == 1:
            outer.append(loop)
        else:
            around, inner = sch.split(loop, [None, sizes[index]])
            (columns if index == column else rows).append(around)
            (last if index == column else tiles).append(inner)
    outer = [*outer, *columns, *rows]
    tiles = [*tiles, *last]
    sch.reorder(*outer, *reductions, *tiles)
    return (sch.fuse(*outer) if len(outer) > 1 else outer[0]), tiles, reductions


def vectorise(sch: Any, loop: Any, lanes: int) -> None:
    """Makes a contiguous loop one vector of up to four registers of `lanes` elements, or several of
    a power of two, unrolled where they are few: LLVM handles vectors of other sizes badly."""
    extent = _extent(sch, loop)
    width = vector_width(extent, 4 * lanes)
    if width < 4:
        return
    if width < extent:
        around, loop = sch.split(loop, [None, width])
        if extent // width <= _UNROLLED_MAX:
            sch.unroll(around)
    sch.vectorize(loop)


def vector_width(extent: int, lanes: int) -> int:
    """The largest power of two up to `lanes` that divides `extent`."""
    width = 1
    while width < lanes and extent % (2 * width) == 0:
        width *= 2
    return width


def absorb_tail(sch: Any, writer: Any) -> None:
    """Computes the elementwise consumer of a result where the result leaves its registers."""
    consumers = sch.get_consumers(writer)
    if len(consumers) == 1:
        try:
            sch.reverse_compute_inline(consumers[0])
        except MISFITS:
            return


def divisors(extent: int, limit: int) -> list[int]:
    """Divisors of `extent` up to `limit`, ascending; at least [1]."""
    small = [n for n in range(1, math.isqrt(extent) + 1) if extent % n == 0]
    return sorted({d for n in small for d in (n, extent // n) if d <= limit} | {1})


def work_of(axes: list[Axis]) -> int:
    """Steps of all loops together."""
    return math.prod(axis.extent for axis in axes)


def _extent(sch: Any, loop: Any) -> int:
    return int(sch.get(loop).extent)
