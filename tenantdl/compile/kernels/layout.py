"""Physical layouts of activations: packed channels with borders, planar with borders.

Packed: [batch][channel blocks][top + height + bottom][left + width + right][lanes]. A block holds
as many channels as a vector has lanes; channels past the last real one are zero weights' output.
Borders are zeroed once, when the arena is made, and never written: a padded convolution reads
them where others copy the tensor first.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

Index = Any


@dataclass(frozen=True, slots=True)
class Border:
    """Rows and columns of zeros around an image."""

    top: int = 0
    left: int = 0
    bottom: int = 0
    right: int = 0

    def __bool__(self) -> bool:
        return any((self.top, self.left, self.bottom, self.right))

    def union(self, other: Border) -> Border:
        """The smallest border that serves both."""
        return Border(
            max(self.top, other.top),
            max(self.left, other.left),
            max(self.bottom, other.bottom),
            max(self.right, other.right),
        )

    def turned(self) -> Border:
        """The border of the transposed image."""
        return Border(self.left, self.top, self.right, self.bottom)


NO_BORDER = Border()


@dataclass(frozen=True, slots=True)
class Packed:
    """Channels [first_block, first_block + blocks) of a packed buffer of `total_blocks` blocks."""

    batch: int
    channels: int
    height: int
    width: int
    lanes: int
    border: Border = NO_BORDER
    first_block: int = 0
    total_blocks: int = 0

    @property
    def blocks(self) -> int:
        """Channel blocks of this value."""
        return -(-self.channels // self.lanes)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the buffer that holds it."""
        border = self.border
        return (
            self.batch,
            self.total_blocks or self.blocks,
            border.top + self.height + border.bottom,
            border.left + self.width + border.right,
            self.lanes,
        )

    @property
    def contiguous(self) -> bool:
        """No border: the pixels of one block follow each other without gaps."""
        return not self.border

    def index(self, n: Index, block: Index, y: Index, x: Index, lane: Index = 0) -> tuple[Any, ...]:
        """Index of pixel (y, x), which may lie in the border (negative, or past the end)."""
        return (n, block + self.first_block, y + self.border.top, x + self.border.left, lane)

    @property
    def is_column(self) -> bool:
        """One pixel wide, nothing to its left or right."""
        return self.width == 1 and not self.border.left and not self.border.right

    @property
    def is_line(self) -> bool:
        """One row or column, with a border at its ends only."""
        border = self.border
        return self.is_column or (self.height == 1 and not border.top and not border.bottom)

    def turned(self) -> Packed:
        """The same memory with the column as a row, or the row as a column. Needs `is_line`."""
        border = self.border.turned()
        return replace(self, height=self.width, width=self.height, border=border)

    def flattened(self) -> Packed:
        """The same memory seen as one row of height · width pixels. Needs `contiguous`."""
        return replace(self, height=1, width=self.height * self.width)


@dataclass(frozen=True, slots=True)
class Planar:
    """Row-major [batch][channels][height][width] with a border: what a stem convolution reads."""

    batch: int
    channels: int
    height: int
    width: int
    border: Border = NO_BORDER

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the buffer that holds it."""
        border = self.border
        return (
            self.batch,
            self.channels,
            border.top + self.height + border.bottom,
            border.left + self.width + border.right,
        )

    def index(self, n: Index, channel: Index, y: Index, x: Index) -> tuple[Any, ...]:
        """Index of pixel (y, x), which may lie in the border."""
        return (n, channel, y + self.border.top, x + self.border.left)
