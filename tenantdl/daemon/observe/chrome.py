"""Blocks as a Chrome trace (also Perfetto's, ui.perfetto.dev): a row for every core.

Format: the "Trace Event Format" of the Chromium project: complete events ("X"), times in µs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from tenantdl.load.status import Block
from tenantdl.units import US

_PROCESS = 1
# A piece is made in about a millisecond: the daemon serves in between.
_PIECE_BLOCKS = 128
_encode = msgspec.json.Encoder().encode


def chrome_trace(blocks: Sequence[Block]) -> Iterator[bytes]:
    """The trace as JSON, in pieces; times from the first block's start. A block on several cores is
    shown on each of them."""
    zero = min((block.start for block in blocks), default=0)
    cores = sorted({core for block in blocks for core in block.cores})
    events: list[dict[str, Any]] = [_name("process_name", 0, "tenantdl cores")]
    events += [_name("thread_name", core, f"core {core}") for core in cores]
    events += [_name("thread_sort_index", core, core, key="sort_index") for core in cores]
    yield b'{"displayTimeUnit":"ms","traceEvents":[' + _joined(events)
    for first in range(0, len(blocks), _PIECE_BLOCKS):
        piece = blocks[first : first + _PIECE_BLOCKS]
        yield b"," + _joined([event for block in piece for event in _events(block, zero)])
    yield b"]}\n"


def _joined(events: Sequence[dict[str, Any]]) -> bytes:
    return b",".join(map(_encode, events))


def _events(block: Block, zero: int) -> Iterator[dict[str, Any]]:
    arguments = {
        "tenant": block.tenant,
        "model": block.model,
        "plan": block.plan,
        "request": block.request,
        "segments": f"{block.begin}:{block.end}",
        "lane": block.lane,
        "cores": block.cores,
        "variant": block.variant,
        "requests": block.size,
        "elapsed_us": block.elapsed / US,
    }
    if block.expected is not None:
        arguments["expected_us"] = block.expected / US
    for core in block.cores:
        yield {
            "name": f"{block.tenant} #{block.request}",
            "cat": block.tenant,
            "ph": "X",
            "pid": _PROCESS,
            "tid": core,
            "ts": (block.start - zero) / US,
            "dur": block.elapsed / US,
            "args": arguments,
        }


def _name(kind: str, thread: int, value: object, key: str = "name") -> dict[str, Any]:
    return {"name": kind, "ph": "M", "pid": _PROCESS, "tid": thread, "args": {key: value}}
