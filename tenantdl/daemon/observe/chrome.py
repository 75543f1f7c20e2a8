"""Blocks as a Chrome trace (also Perfetto's, ui.perfetto.dev): a row for every core.

Format: the "Trace Event Format" of the Chromium project: complete events ("X"), times in µs.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from tenantdl.daemon.observe.timeline import Block
from tenantdl.units import US

_PROCESS = 1


def chrome_trace(blocks: Iterable[Block]) -> bytes:
    """The trace as JSON; times from the first block's start. A block on several cores is shown on
    each of them."""
    known = list(blocks)
    zero = min((block.start for block in known), default=0)
    cores = sorted({core for block in known for core in block.cores})
    events: list[dict[str, Any]] = [_name("process_name", 0, "tenantdl cores")]
    events += [_name("thread_name", core, f"core {core}") for core in cores]
    events += [_name("thread_sort_index", core, core, key="sort_index") for core in cores]
    for block in known:
        arguments = _arguments(block)
        for core in block.cores:
            events.append(
                {
                    "name": f"{block.tenant} #{block.request}",
                    "cat": block.tenant,
                    "ph": "X",
                    "pid": _PROCESS,
                    "tid": core,
                    "ts": (block.start - zero) / US,
                    "dur": block.elapsed / US,
                    "args": arguments,
                }
            )
    return msgspec.json.encode({"traceEvents": events, "displayTimeUnit": "ms"})


def _arguments(block: Block) -> dict[str, Any]:
    said = {
        "tenant": block.tenant,
        "model": block.model,
        "plan": block.plan,
        "request": block.request,
        "segments": f"{block.begin}:{block.end}",
        "lane": block.lane,
        "cores": list(block.cores),
        "variant": block.variant,
        "elapsed_us": block.elapsed / US,
    }
    if block.expected is not None:
        said["expected_us"] = block.expected / US
    return said


def _name(kind: str, thread: int, value: object, key: str = "name") -> dict[str, Any]:
    return {"name": kind, "ph": "M", "pid": _PROCESS, "tid": thread, "args": {key: value}}
