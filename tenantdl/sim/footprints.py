"""Footprints of profiled models (MODEL): what each version asks of caches and memory.

Weights and activations stream once a run. A version's tiles decide how often a multiply-add's
operands are read again from the shared cache (`Tiles.reuse` bytes a multiply-add) and how much of
it they fill (`shared` bytes a core): the greedy version has large tiles, which are fast while they
fit; the modest one lives in the caches of its core. The share of time that waits for memory follows
from the bytes and the rates of one core.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from tenantdl.ids import CoreId
from tenantdl.predict.footprint import Footprint
from tenantdl.sim import scaling
from tenantdl.sim.contention import MEMORY_LATENCY, Demand, Parts
from tenantdl.sim.profiles import VERSIONS

_MIB = 1024**2
# Bytes/ns that one core reads from the shared cache, and what part of that no arithmetic hides.
CACHE_GBS = 12.0
_EXPOSED = 0.35
_WAIT_MAX = 0.9
_PRIVATE = 0.5 * _MIB


class Tiles(NamedTuple):
    """`reuse`: bytes from the shared cache a multiply-add; `shared`: working set there, a core."""

    reuse: float
    shared: float


GREEDY, MODEST = Tiles(0.30, 8.0 * _MIB), Tiles(0.03, 0.5 * _MIB)


@lru_cache(maxsize=64)
def footprints(name: str, versions: int = VERSIONS) -> tuple[Footprint, ...]:
    """Of a profiled model's versions, greedy to modest."""
    work = scaling.layers(name)
    macs = float(work.macs.sum())
    stream = float((work.weights + work.activations).sum())
    places = np.linspace(0.0, 1.0, versions) if versions > 1 else np.zeros(1)
    return tuple(
        Footprint(
            flops=2 * macs,
            stream_bytes=stream,
            reuse_bytes=macs * _between(GREEDY.reuse, MODEST.reuse, float(x)),
            shared_bytes=_between(GREEDY.shared, MODEST.shared, float(x)),
            private_bytes=_PRIVATE,
        )
        for x in places
    )


def demand(footprint: Footprint, time_ns: float, serial_ns: float) -> Demand:
    """Of a launch whose whole plan takes `time_ns` undisturbed, and `serial_ns` on the fewest
    cores there are costs for."""
    stream, reuse = footprint.stream_bytes, footprint.reuse_bytes
    waiting = _EXPOSED * (MEMORY_LATENCY * stream + reuse) / CACHE_GBS
    return Demand(
        stream / time_ns,
        reuse / time_ns,
        footprint.shared_bytes,
        min(_WAIT_MAX, waiting / serial_ns),
    )


def places(cores: Sequence[CoreId], size: int) -> Parts:
    """How many of `cores` are in which group of `size` neighbours."""
    counts: dict[int, int] = {}
    for core in cores:
        counts[core // size] = counts.get(core // size, 0) + 1
    return tuple(sorted(counts.items()))


def _between(first: float, last: float, x: float) -> float:
    return first + (last - first) * x
