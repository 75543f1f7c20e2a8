"""Cut a plan into segments: the smallest runs of operators that the scheduler may preempt between.

A segment aims at `TARGET_NS` on one core, so that a boundary (2 us) costs under half a percent
and a waiting tenant waits under a millisecond. One operator is never cut.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from tenantdl.bundle.manifest import Call, Segment
from tenantdl.exec.runner import Runner

TARGET_NS = 500_000
# One core, for plans that cannot be measured here: a modest CPU.
_FLOPS_A_NS = 60.0
_BYTES_A_NS = 10.0
_MEASURE_NS_MAX = 3_000_000_000


def estimate_ns(call: Call) -> int:
    """Time of an operator by its arithmetic or its bytes, whichever takes longer."""
    return 1_000 + round(max(call.flops / _FLOPS_A_NS, call.bytes / _BYTES_A_NS))


def measure_ns(runner: Runner, runs: int) -> list[int]:
    """Least time of each operator over `runs` runs in sequence, on the calling thread's cores."""
    best: list[int] = []
    start = time.perf_counter_ns()
    for _ in range(runs):
        times = runner.time_ns()
        best = [min(pair) for pair in zip(best, times, strict=True)] if best else times
        if time.perf_counter_ns() - start > _MEASURE_NS_MAX:
            break
    return best


def cut(costs: Sequence[int]) -> tuple[Segment, ...]:
    """Consecutive operators whose costs add up to about `TARGET_NS`."""
    segments: list[Segment] = []
    begin, total = 0, 0
    for position, cost in enumerate(costs):
        if position > begin and total + cost > TARGET_NS * 1.2:
            segments.append(Segment(begin, position, total))
            begin, total = position, 0
        total += cost
        if total >= TARGET_NS:
            segments.append(Segment(begin, position + 1, total))
            begin, total = position + 1, 0
    if begin < len(costs):
        segments.append(Segment(begin, len(costs), total))
    return tuple(segments)
