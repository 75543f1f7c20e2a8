"""Cutting an extent into register tiles: as even as possible, so that no tile is nearly empty."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Run:
    """`count` tiles of `size` pixels each, from pixel `start` on."""

    count: int
    size: int
    start: int


def even_runs(extent: int, size_max: int) -> list[Run]:
    """Cut `extent` pixels into the fewest tiles of at most `size_max`, sizes differing by one."""
    tiles = -(-extent // size_max)
    small, larger = divmod(extent, tiles)
    runs = []
    if larger:
        runs.append(Run(larger, small + 1, 0))
    if small and tiles > larger:
        runs.append(Run(tiles - larger, small, larger * (small + 1)))
    return runs


def divisor(extent: int, most: int) -> int:
    """The largest divisor of `extent` that is at most `most`."""
    return max(n for n in range(1, min(extent, most) + 1) if extent % n == 0)


def pieces(count: int, lanes: int) -> list[tuple[int, int]]:
    """`count` elements as (start, length) of vectors: whole ones, then falling powers of two."""
    cut, start, length = [], 0, lanes
    while start < count:
        while start + length <= count:
            cut.append((start, length))
            start += length
        length //= 2
    return cut
