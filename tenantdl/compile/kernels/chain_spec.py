"""What a chain of convolutions is, apart from how it is computed: sizes, layouts, and its knobs."""

from __future__ import annotations

from dataclasses import dataclass

from tenantdl.compile.kernels.epilogue import EMPTY, Program
from tenantdl.compile.kernels.layout import Packed, Planar


@dataclass(frozen=True, slots=True)
class Window:
    """A convolution's kernel, stride and pads (rows above, columns left)."""

    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    pads: tuple[int, int] = (0, 0)
    program: Program = EMPTY


@dataclass(frozen=True, slots=True)
class ChainSpec:
    """`middle`: the image between first and depthwise convolution, which is not stored. `data` is
    packed and `first` 1×1 without strides, or `data` is planar without a border. `last`: program
    of the last convolution; None if there is none. Programs but the last one have only operands
    by channel. `sums`: channel sums are an output, too (without `last`)."""

    data: Packed | Planar
    middle: Packed
    out: Packed
    first: Window
    depthwise: Window
    last: Program | None = None
    sums: bool = False

    @property
    def ring_columns(self) -> int:
        """Columns of a row of the ring, zeros left and right included."""
        width = (self.out.width - 1) * self.depthwise.stride[1] + self.depthwise.kernel[1]
        return max(width, self.depthwise.pads[1] + self.middle.width)


@dataclass(frozen=True, slots=True)
class ChainSchedule:
    """Knobs. Register tiles: `pixels` of one block of the first convolution, `depth_pixels` of the
    depthwise one, `last_blocks` (which divides the output's) × `last_pixels` of the last. `strips`:
    tasks that the rows of an image are dealt to; `rows`: how many a task filters block by block
    before the last convolution, so that a block's part of the ring stays in L1."""

    pixels: int
    depth_pixels: int
    last_blocks: int
    last_pixels: int
    strips: int
    rows: int = 1


def channel_runs(data: Packed) -> list[tuple[int, int, int]]:
    """Blocks of `data` as (first block, blocks, channels in each)."""
    whole, rest = divmod(data.channels, data.lanes)
    return [run for run in ((0, whole, data.lanes), (whole, 1, rest)) if run[1] * run[2]]
