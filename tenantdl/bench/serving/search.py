"""The highest rates at which a target keeps its promises, in few probes.

Rates lie on a grid of equal ratios, so that runs of unlike targets end at comparable figures. It is
supposed that more load is never easier; a probe ends early when it has clearly failed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from tenantdl.bench.serving.probe import Probe

_PROBES_MAX, _STRIDE_MAX = 12, 16


class Found(NamedTuple):
    """For each share that was asked for: the highest rate that held (0: none did). `probes`: all
    that were made, in order."""

    rates: dict[float, float]
    probes: list[Probe]

    def at(self, share: float) -> Probe | None:
        """The probe at the highest rate that held for `share`."""
        held = [probe for probe in self.probes if probe.rate == self.rates[share]]
        return held[-1] if held else None


def find_rates(
    drive: Callable[[float], Probe],
    shares: Sequence[float],
    *,
    start: float,
    step: float,
    stride: int,
    least: float = 0.0,
) -> Found:
    """Search from `start` upwards or downwards, to within a factor of `step`; the first steps are
    `stride` points wide. Rates below `least` are not tried: they do not hold. `drive` may stop a
    probe early when the lowest of `shares` is missed."""
    start = max(start, least)
    probes: dict[int, Probe] = {}
    best: dict[float, int | None] = {}
    for share in sorted(shares):

        def holds(point: int, share: float = share) -> bool:
            if start * step**point < least:
                return False
            if point not in probes:
                probes[point] = drive(start * step**point)
            return probes[point].holds(share)

        known = {point: probe.holds(share) for point, probe in probes.items()}
        best[share] = _highest(holds, known, 1 if known else stride)
    rates = {share: 0.0 if p is None else probes[p].rate for share, p in best.items()}
    return Found(rates, list(probes.values()))


def _highest(holds: Callable[[int], bool], known: dict[int, bool], stride: int) -> int | None:
    """The highest point that holds, None if none does; what is `known` is not asked again."""
    held = max((point for point, good in known.items() if good), default=None)
    failed = min((p for p, good in known.items() if not good and p > _low(held)), default=None)
    for _ in range(_PROBES_MAX):
        if held is not None and failed is not None:
            if failed - held <= 1:
                break
            point = (held + failed) // 2
        elif held is not None:
            point = held + stride
        else:
            point = failed - stride if failed is not None else 0
        if held is not None or failed is not None:
            stride = min(2 * stride, _STRIDE_MAX)
        if holds(point):
            held = point
        else:
            failed = point
    return held


def _low(held: int | None) -> float:
    return float("-inf") if held is None else held
