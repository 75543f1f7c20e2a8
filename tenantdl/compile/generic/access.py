"""What a block of a kernel loops over, and how its accesses lie in memory."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from tvm import sym, tirx


@dataclass(frozen=True, slots=True)
class Axis:
    """A loop of a block: its variable in the block, its extent, and whether it reduces."""

    var: Any
    extent: int
    reduces: bool


def axes_of(sch: Any, block: Any) -> list[Axis]:
    """The axes of a block, outermost first. Raises TypeError where an extent is not constant."""
    return [
        Axis(axis.var, int(axis.dom.extent), axis.iter_type == tirx.IterVar.CommReduce)
        for axis in sch.get(block).iter_vars
    ]


def volume(sch: Any, block: Any) -> int:
    """Steps of all loops of a block together."""
    return math.prod(axis.extent for axis in axes_of(sch, block))


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


def _stride(index: Any, axis: Axis) -> int | None:
    """Elements that an index moves by a step of the axis; None where that varies."""
    linear = sym.detect_linear_equation(index, [axis.var])
    if len(linear) != 2 or not isinstance(linear[0], tirx.IntImm):
        return None
    return int(linear[0])
