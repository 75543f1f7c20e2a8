"""The best static partition of the cores for a workload, by search: the strongest baseline.

Every way to split the models into parts, and the cores among the parts, is tried on the workload's
own trace: a part's models have an instance for each of its cores, requests of a model are served in
order, and instances that are busy at once share the part's cores evenly, as the system would have
it. What each request takes is measured. The best is the one with the highest rate at which every
tenant has its share in time.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from tenantdl.ids import CoreId

# Rates are found to within 2 %; partitions beyond so many are not tried.
_PRECISION, _PARTITIONS_MAX = 1.02, 4096


class Demand(NamedTuple):
    """One model under load: arrival times in s at a rate of 1, what a request takes alone on one
    core, and within what time (s) it has to be answered."""

    times: Sequence[float]
    takes_s: float
    qos_s: float


def best_partition(
    demands: Mapping[str, Demand], cores: Sequence[CoreId], share: float = 0.95
) -> tuple[dict[str, tuple[CoreId, ...]], float]:
    """The cores of each model, and the rate that this is expected to hold."""
    names = list(demands)
    best: tuple[float, dict[str, tuple[CoreId, ...]]] = (-1.0, {})
    for count, (parts, sizes) in enumerate(_partitions(names, len(cores))):
        if count >= _PARTITIONS_MAX:
            break
        if best[0] > 0 and not _holds(demands, parts, sizes, best[0] * _PRECISION, share):
            continue
        rate = _highest(demands, parts, sizes, share)
        if rate > best[0]:
            best = rate, _pinned(parts, sizes, cores)
    return best[1], best[0]


def _partitions(names: list[str], cores: int) -> Iterator[tuple[list[list[str]], tuple[int, ...]]]:
    """Splits of the models into at most `cores` parts, with a number of cores for each."""
    for parts in _splits(names, cores):
        for sizes in _sizes(len(parts), cores):
            yield parts, sizes


def _splits(names: list[str], most: int) -> Iterator[list[list[str]]]:
    if not names:
        yield []
        return
    first, rest = names[0], names[1:]
    for parts in _splits(rest, most):
        for index in range(len(parts)):
            yield [*parts[:index], [first, *parts[index]], *parts[index + 1 :]]
        if len(parts) < most:
            yield [[first], *parts]


def _sizes(parts: int, cores: int) -> Iterator[tuple[int, ...]]:
    if parts == 1:
        yield (cores,)
        return
    for size in range(1, cores - parts + 2):
        for others in _sizes(parts - 1, cores - size):
            yield (size, *others)


def _pinned(
    parts: list[list[str]], sizes: tuple[int, ...], cores: Sequence[CoreId]
) -> dict[str, tuple[CoreId, ...]]:
    pinned: dict[str, tuple[CoreId, ...]] = {}
    first = 0
    for part, size in zip(parts, sizes, strict=True):
        pinned |= dict.fromkeys(part, tuple(cores[first : first + size]))
        first += size
    return pinned


def _highest(
    demands: Mapping[str, Demand], parts: list[list[str]], sizes: tuple[int, ...], share: float
) -> float:
    """The highest rate that holds, starting at what would fill the cores."""
    work = sum(len(d.times) * d.takes_s for d in demands.values())
    span = max(max(d.times, default=0.0) for d in demands.values()) or 1.0
    high = 2 * sum(sizes) * span / max(work, 1e-9)
    low = high / 1024
    if not _holds(demands, parts, sizes, low, share):
        return 0.0
    while high / low > _PRECISION:
        middle = (low * high) ** 0.5
        if _holds(demands, parts, sizes, middle, share):
            low = middle
        else:
            high = middle
    return low


def _holds(
    demands: Mapping[str, Demand],
    parts: list[list[str]],
    sizes: tuple[int, ...],
    rate: float,
    share: float,
) -> bool:
    return all(
        _part_holds([demands[name] for name in part], size, rate, share)
        for part, size in zip(parts, sizes, strict=True)
    )


def _part_holds(models: Sequence[Demand], cores: int, rate: float, share: float) -> bool:
    """Whether a part of `cores` cores serves its models at `rate`, every one in time."""
    late = [0] * len(models)
    arrivals = list(
        heapq.merge(*([(at / rate, m) for at in d.times] for m, d in enumerate(models)))
    )
    waiting: list[list[float]] = [[] for _ in models]  # arrival times, by model
    running: list[tuple[float, int, float]] = []  # (work finished at, model, arrival)
    busy = [0] * len(models)
    now = done = 0.0  # `done`: work that every running request has got
    index = 0
    while index < len(arrivals) or running:
        speed = min(1.0, cores / len(running)) if running else 1.0
        ends = now + (running[0][0] - done) / speed if running else float("inf")
        starts = arrivals[index][0] if index < len(arrivals) else float("inf")
        step = min(ends, starts)
        done += (step - now) * speed
        now = step
        if ends <= starts:
            _, model, at = heapq.heappop(running)
            busy[model] -= 1
            late[model] += now - at > models[model].qos_s
            if late[model] > (1 - share) * len(models[model].times):
                return False
        else:
            _, model = arrivals[index]
            index += 1
            waiting[model].append(now)
        if waiting[model] and busy[model] < cores:
            at = waiting[model].pop(0)
            busy[model] += 1
            heapq.heappush(running, (done + models[model].takes_s, model, at))
    return True
