"""What a convolution is, apart from how it is computed: sizes, layouts, epilogue, and its knobs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from tenantdl.compile.kernels.emit import Emitter, Index, Value
from tenantdl.compile.kernels.epilogue import EMPTY, Program
from tenantdl.compile.kernels.layout import Packed, Planar

PLANE_PIXELS_MAX = 100  # images up to this size are tiled across rows, with static addresses


@dataclass(frozen=True, slots=True)
class Phase:
    """Every `step`-th output pixel from `offset` on, `rows` × `columns` of them: one of the
    convolutions that a transposed convolution is made of."""

    step: tuple[int, int]
    offset: tuple[int, int]
    rows: int
    columns: int


@dataclass(frozen=True, slots=True)
class ConvSpec:
    """One convolution. `pads`: rows above and columns left that the kernel reaches out of the
    image. `groups` > 1 needs whole blocks of channels in each group. `gate`: a number for each
    channel and image that the data is to be multiplied by. `own_weights`: each image has some."""

    data: Packed | Planar
    out: Packed
    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    pads: tuple[int, int] = (0, 0)
    groups: int = 1
    program: Program = EMPTY
    phase: Phase | None = None
    gate: Packed | None = None
    own_weights: bool = False

    @property
    def rows(self) -> int:
        """Rows of output that this convolution computes."""
        return self.out.height if self.phase is None else self.phase.rows

    @property
    def columns(self) -> int:
        """Columns of output that this convolution computes."""
        return self.out.width if self.phase is None else self.phase.columns

    @property
    def lanes(self) -> int:
        """Channel block."""
        return self.out.lanes

    @property
    def steps(self) -> int:
        """Reduction steps: input channels of a group × kernel."""
        return self.data.channels // self.groups * self.kernel[0] * self.kernel[1]

    @property
    def channel_runs(self) -> list[tuple[int, int, int]]:
        """A group's blocks of input channels as (first block, blocks, channels in each): the last
        block may hold fewer channels, and no step is spent on its padding."""
        whole, rest = divmod(self.data.channels // self.groups, self.lanes)
        runs = [(0, whole, self.lanes), (whole, 1, rest)]
        return [run for run in runs if run[1] and run[2]]

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """Shape of the packed weights."""
        head = (self.out.blocks * (self.out.batch if self.own_weights else 1),)
        if isinstance(self.data, Planar):
            return (*head, self.data.channels, *self.kernel, self.lanes)
        return (*head, self.data.blocks // self.groups, *self.kernel, self.lanes, self.lanes)

    def __str__(self) -> str:
        """Sizes and epilogue, for people and tuning records; borders are left out."""
        data, kind = self.data, "planar " if isinstance(self.data, Planar) else ""
        pairs = zip("ksdp", (self.kernel, self.stride, self.dilation, self.pads), strict=True)
        numbers = " ".join(f"{name}{y}x{x}" for name, (y, x) in pairs)
        image = f"{data.batch}x{data.channels}x{data.height}x{data.width}"
        phase = f" phase {self.phase}" if self.phase else ""
        steps = "".join(f" {step.op}" for step in self.program.steps)
        return f"{kind}{image} to {self.out.channels} {numbers} g{self.groups}{phase}{steps}"

    def simplified(self) -> ConvSpec:
        """The same memory seen so that rows are long: a 1×1 convolution without gaps has one row,
        a column of pixels is turned into a row."""
        layouts = self._layouts
        if self.phase or not all(isinstance(layout, Packed) for layout in layouts):
            return self
        if self.is_matrix:
            return self._seen(Packed.flattened)
        if self.kernel[1] == 1 and self.out.height > 1 and all(x.is_column for x in layouts):
            return replace(
                self._seen(Packed.turned),
                kernel=self.kernel[::-1],
                stride=self.stride[::-1],
                dilation=self.dilation[::-1],
                pads=self.pads[::-1],
            )
        return self

    @property
    def is_matrix(self) -> bool:
        """A 1×1 convolution without gaps between rows: pixels may be counted in any shape."""
        pointwise = self.kernel == (1, 1) and self.stride == (1, 1) and self.pads == (0, 0)
        return pointwise and all(isinstance(x, Packed) and x.contiguous for x in self._layouts)

    @property
    def _layouts(self) -> list[Any]:
        return [self.data, self.out, *(o.layout for o in self.program.operands if o.layout)]

    def folded(self, rows: int) -> ConvSpec:
        """One row of pixels seen as `rows` rows, which it must divide into; `self` for 1."""
        if rows == 1:
            return self
        return self._seen(lambda layout: replace(layout, height=rows, width=layout.width // rows))

    def _seen(self, view: Callable[[Packed], Packed]) -> ConvSpec:
        """Every layout through `view`; operands of one pixel stay."""
        operands = tuple(
            replace(operand, layout=view(operand.layout)) if operand.access == "full" else operand
            for operand in self.program.operands
        )
        assert isinstance(self.data, Packed)
        return replace(
            self,
            data=view(self.data),
            out=view(self.out),
            program=replace(self.program, operands=operands),
        )


@dataclass(frozen=True, slots=True)
class ConvSchedule:
    """Knobs. `blocks` × `pixels`: the register tile; `row_block`: rows of the image for which all
    output channels are computed before the next rows (1: data stays in L1, height: weights do).
    `fold`: a convolution of one long row is computed as that many rows.
    `prefetch_weights`: ask for the next group's; `prefetch_data`: for the next tile's pixels.
    `chunk`: blocks of input channels that meet all pixels before the next ones do; 0: all.
    `across`: register tiles of a row to share prefetches out among; 0: as many as there are."""

    blocks: int
    pixels: int
    row_block: int
    fold: int = 1
    prefetch_weights: bool = False
    prefetch_data: bool = False
    chunk: int = 0
    across: int = 0


def is_plane(spec: ConvSpec) -> bool:
    """Whether the (simplified) image is small enough to be tiled across rows."""
    rows, columns = spec.rows, spec.columns
    return rows > 1 and rows * columns <= PLANE_PIXELS_MAX and columns < 12


def operand_shape(layout: Any, access: str, out: Packed) -> tuple[int, ...]:
    """Shape of an operand of a program over packed output `out`."""
    if access == "full":
        return tuple(layout.shape)
    if access == "image":
        return tuple(layout.shape)
    return (out.blocks, out.lanes)


def operand_loader(
    e: Emitter, program: Program, buffers: list[Any], n: Index, block: Index, y: Index, x: Index
) -> Callable[[int], Value]:
    """`load(i)` for `Program.apply` at one pixel of a packed output."""

    def load(i: int) -> Value:
        operand = program.parameters[i]
        if operand.access == "full":
            return e.load(buffers[i], operand.layout.index(n, block, y, x))
        if operand.access == "image":
            return e.load(buffers[i], operand.layout.index(n, block, 0, 0))
        return e.load(buffers[i], (block, 0))

    return load
