"""Between row-major [N][C][H][W] (or [N][C][L]) and packed channels."""

from __future__ import annotations

import hashlib
from typing import Any

from tvm.script.ir_builder import tirx as T

from tenantdl.compile.kernels.emit import Emitter
from tenantdl.compile.kernels.layout import Packed, Planar
from tenantdl.compile.kernels.runs import pieces
from tenantdl.compile.operator import Kernel

_STRIP = 64  # pixels of a parallel task


def pack_kernel(layout: Packed, shape: tuple[int, ...]) -> Kernel:
    """Parameters: plain tensor of `shape`, packed tensor. Missing channels become zero."""
    return _kernel("pack", layout, shape)


def unpack_kernel(layout: Packed, shape: tuple[int, ...]) -> Kernel:
    """Parameters: packed tensor, plain tensor of `shape`."""
    return _kernel("unpack", layout, shape)


def pad_kernel(layout: Planar, shape: tuple[int, ...]) -> Kernel:
    """Parameters: plain tensor of `shape`, the same image with a border (which stays zero)."""
    digest = hashlib.sha256(repr((layout, shape)).encode()).hexdigest()[:12]
    with Emitter(f"pad_{digest}", 1) as e:
        plain, out = e.param("plain", shape), e.param("out", layout.shape)
        rows = layout.channels * layout.height
        with e.parallel(layout.batch * rows) as task:
            n, c, y = task // rows, task % rows // layout.height, task % layout.height
            with T.vectorized(0, layout.width) as x:
                source = (n, c, x) if len(shape) == 3 else (n, c, y, x)
                T.buffer_store(out, plain[source], list(layout.index(n, c, y, x)))
    return e.kernel()


def _kernel(way: str, layout: Packed, shape: tuple[int, ...]) -> Kernel:
    digest = hashlib.sha256(repr((way, layout, shape)).encode()).hexdigest()[:12]
    lanes = layout.lanes
    with Emitter(f"{way}_{digest}", lanes) as e:
        if way == "pack":
            plain, packed = e.param("plain", shape), e.param("packed", layout.shape)
        else:
            packed, plain = e.param("packed", layout.shape), e.param("plain", shape)
        whole, rest = divmod(layout.channels, lanes)
        rows = layout.blocks * layout.height
        with e.parallel(layout.batch * rows) as task:
            n, block, y = task // rows, task % rows // layout.height, task % layout.height
            if rest and whole:
                with e.branches(block < whole) as (full, tail):
                    with full:
                        _row(e, way, plain, packed, layout, (n, block, y), lanes)
                    with tail:
                        _row(e, way, plain, packed, layout, (n, block, y), rest)
            else:
                _row(e, way, plain, packed, layout, (n, block, y), rest or lanes)
    return e.kernel()


def _row(
    e: Emitter,
    way: str,
    plain: Any,
    packed: Any,
    layout: Packed,
    at: tuple[Any, Any, Any],
    channels: int,
) -> None:
    """One row of one block, of which `channels` are real."""
    n, block, y = at
    lanes = layout.lanes
    rank3 = len(plain.shape) == 3

    def outer(lane: Any, x: Any) -> tuple[Any, ...]:
        channel = block * lanes + lane
        return (n, channel, x) if rank3 else (n, channel, y, x)

    with e.serial(layout.width) as x:
        for lane in range(channels):
            inner = layout.index(n, block, y, x, lane)
            if way == "pack":
                T.buffer_store(packed, plain[outer(lane, x)], list(inner))
            else:
                T.buffer_store(plain, packed[inner], list(outer(lane, x)))
        if way == "pack":
            for lane in range(channels, lanes):
                T.buffer_store(packed, T.float32(0), list(layout.index(n, block, y, x, lane)))


def last_kernel(way: str, layout: Packed, shape: tuple[int, ...]) -> Kernel:
    """Between a row-major tensor of `shape` with channels last and a packed one: `way` is "pack"
    or "unpack". Vectors are copied; missing channels become zero."""
    digest = hashlib.sha256(repr((way, "last", layout, shape)).encode()).hexdigest()[:12]
    lanes, channels = layout.lanes, layout.channels
    pixels = (layout.batch, layout.height, layout.width, channels)
    with Emitter(f"{way}_{digest}", lanes) as e:
        if way == "pack":
            plain, packed = e.param("plain", pixels), e.param("packed", layout.shape)
        else:
            packed, plain = e.param("packed", layout.shape), e.param("plain", pixels)

        def copy(block: Any, at: tuple[Any, Any, Any], lane: int, count: int) -> None:
            place = layout.index(at[0], block, at[1], at[2], lane)
            row = (*at, block * lanes + lane)
            if way == "pack":
                e.store(packed, place, e.load(plain, row, count), count)
            else:
                e.store(plain, row, e.load(packed, place, count), count)

        whole, rest = divmod(channels, lanes)
        rows = layout.batch * layout.height
        strips = -(-layout.width // _STRIP)
        with e.parallel(rows * strips) as task:
            n, y, x0 = (
                task // strips // layout.height,
                task // strips % layout.height,
                task % strips,
            )
            extent = T.min(_STRIP, layout.width - x0 * _STRIP)
            with e.serial(extent) as dx:
                at = (n, y, x0 * _STRIP + dx)
                with e.serial(whole) as block:
                    copy(block, at, 0, lanes)
                for lane, count in pieces(rest, lanes):
                    copy(whole, at, lane, count)
                if rest and way == "pack":
                    for lane, count in pieces(-channels % lanes, lanes):
                        empty = layout.index(at[0], whole, at[1], at[2], rest + lane)
                        e.store(packed, empty, e.splat(0.0, count), count)
    return e.kernel()


def copy_kernel(shape: tuple[int, ...], dtype: str) -> Kernel:
    """Parameters: source, destination, both of `shape` and `dtype`."""
    size = 1
    for extent in shape:
        size *= extent
    with Emitter(f"copy_{size}_{dtype}", 1) as e:
        source, target = e.param("source", (size,), dtype), e.param("target", (size,), dtype)
        with e.serial(size) as i:
            T.buffer_store(target, source[i], [i])
    return e.kernel()
