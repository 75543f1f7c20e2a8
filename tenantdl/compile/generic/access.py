"""What a block of a kernel loops over, and how its accesses lie in memory."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import tvm_ffi
from tvm import s_tir, sym, tirx
from tvm.ir.expr import TensorLoad


@dataclass(frozen=True, slots=True)
class Axis:
    """A loop of a block: its variable in the block, its extent, and whether it reduces."""

    var: Any
    extent: int
    reduces: bool


def axes_of(sch: Any, block: Any) -> list[Axis]:
    """The axes of a block, outermost first. Raises ScheduleError for extents not constant."""
    axes = []
    for axis in sch.get(block).iter_vars:
        if not isinstance(axis.dom.extent, tirx.IntImm):
            raise s_tir.ScheduleError(f"the extent of {axis.var} is not constant")
        reduces = axis.iter_type == tirx.IterVar.CommReduce
        axes.append(Axis(axis.var, int(axis.dom.extent), reduces))
    return axes


def volume(sch: Any, block: Any) -> int:
    """Steps of all loops of a block together."""
    return math.prod(axis.extent for axis in axes_of(sch, block))


def size_of(statement: Any) -> int:
    """Nodes of the expressions of a block, counted as a tree."""
    count = 0

    def visit(node: Any) -> None:
        nonlocal count
        count += 1

    tvm_ffi.structural_walk(statement.body, visit)
    return count


def loads_of(statement: Any, buffer: Any) -> int:
    """How many times a block's expressions load from a buffer."""
    count = 0

    def visit(load: Any) -> None:
        nonlocal count
        count += load.source.same_as(buffer)

    tvm_ffi.structural_walk(statement.body, (TensorLoad, visit))
    return count


def contiguous_axis(region: Any, axes: list[Axis], *, reduces: bool) -> int | None:
    """The axis along which an access walks neighbouring elements; None where there is none of the
    asked kind. A convolution's input has one of both kinds."""
    for extent, index in reversed(list(zip(region.source.shape, region.region, strict=True))):
        if int(extent) == 1:
            continue
        for number, axis in enumerate(axes):
            if axis.reduces == reduces and axis.extent > 1 and _stride(index.min, axis) == 1:
                return number
        return None
    return None


def depends(region: Any, axis: Axis) -> bool:
    """Whether an access moves with an axis."""
    return any(_stride(index.min, axis) != 0 for index in region.region)


def dimension_axes(region: Any, axes: list[Axis]) -> list[int | None] | None:
    """The axis that each dimension of an access is (None: it stays at 0); None where an index is
    anything but one axis."""
    found: list[int | None] = []
    for index in region.region:
        moving = [n for n, axis in enumerate(axes) if _stride(index.min, axis) != 0]
        if not moving:
            found.append(None)
        elif len(moving) == 1 and index.min.same_as(axes[moving[0]].var):
            found.append(moving[0])
        else:
            return None
    return found


def _stride(index: Any, axis: Axis) -> int | None:
    """Elements that an index moves by a step of the axis; None where that varies."""
    linear = sym.detect_linear_equation(index, [axis.var])
    if len(linear) != 2 or not isinstance(linear[0], tirx.IntImm):
        return None
    return int(linear[0])
