"""Cut a plan into segments: the smallest runs of operators that the scheduler may preempt between.

A segment aims at `TARGET_NS` on one core, so that a boundary (2 us) costs under half a percent
and a waiting tenant waits under a millisecond. Operators that take longer (the feed-forward layers
of BERT-large: 10 ms) are run in parts, each some iterations of their parallel loop: that costs
nothing, and no kernel knows.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from tenantdl.bundle.manifest import Call, Segment
from tenantdl.exec.cores import pin
from tenantdl.exec.runner import Runner
from tenantdl.ids import CoreId

TARGET_NS = 500_000
# Operators from _LONG_NS on are run in parts of about _PART_NS and at least two iterations, so that
# two cores find work in each. The runtime counts iterations with 18 bits.
_LONG_NS, _PART_NS, _ITERATIONS_MIN, _LOOP_MAX = 1_500_000, 750_000, 2, 2**18 - 1
# One core, for plans that cannot be measured here: a modest CPU.
_FLOPS_A_NS = 60.0
_BYTES_A_NS = 10.0
_MEASURE_NS_MAX = 6_000_000_000


def estimate_ns(call: Call) -> int:
    """Time of an operator by its arithmetic or its bytes, whichever takes longer."""
    return 1_000 + round(max(call.flops / _FLOPS_A_NS, call.bytes / _BYTES_A_NS))


def measure_ns(runner: Runner, groups: Sequence[Sequence[CoreId]], runs: int) -> list[list[int]]:
    """Least time of each operator over `runs` runs in sequence on each group of cores. The groups
    take turns, so that a neighbour's noise hits all of them. Pins the calling thread."""
    best: list[list[int]] = [[] for _ in groups]
    start = time.perf_counter_ns()
    for _ in range(runs):
        for place, group in enumerate(groups):
            pin(group)
            times, known = runner.time_ns(), best[place]
            best[place] = [min(pair) for pair in zip(known, times, strict=True)] if known else times
        if time.perf_counter_ns() - start > _MEASURE_NS_MAX:
            break
    return best


def cut(costs: Sequence[int], calls: Sequence[Call]) -> tuple[Segment, ...]:
    """Consecutive operators whose costs on one core (`costs`) add up to about `TARGET_NS`; an
    operator of several times that in parts, where it can be run so."""
    segments: list[Segment] = []
    begin, total = 0, 0

    def close(end: int) -> None:
        nonlocal begin, total
        if end > begin:
            segments.append(Segment(begin, end, total))
        begin, total = end, 0

    for position, (cost, call) in enumerate(zip(costs, calls, strict=True)):
        parts = parts_of(cost, call.loop)
        if parts > 1 or total + cost > TARGET_NS * 1.2:
            close(position)
        if parts > 1:
            end = position + 1
            segments += [Segment(position, end, cost // parts, i, parts) for i in range(parts)]
            begin = end
            continue
        total += cost
        if total >= TARGET_NS:
            close(position + 1)
    close(len(costs))
    return tuple(segments)


def parts_of(cost_ns: int, loop: int) -> int:
    """In how many parts an operator with a parallel loop of so many iterations is run."""
    if cost_ns < _LONG_NS or loop > _LOOP_MAX:
        return 1
    return max(1, min(loop // _ITERATIONS_MIN, round(cost_ns / _PART_NS)))


def costs_of(segments: Sequence[Segment], costs: Sequence[int]) -> tuple[int, ...]:
    """The segments' costs by those of the operators."""
    return tuple(sum(costs[part.begin : part.end]) // part.parts for part in segments)
