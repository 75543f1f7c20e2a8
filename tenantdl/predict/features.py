"""Samples as numbers: rates over what the machine has, so that they mean the same anywhere.

`MONOTONE` says which way physics goes: more traffic, fuller caches, more neighbours or a colder
start never make the victim faster. What describes the victim alone may do either. What hardware
counters say is optional: not a number where there are none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tenantdl.predict.samples import Party, Room, Sample

Array = NDArray[np.float64]

FEATURES = (
    ("victim_stream", 0),
    ("victim_reuse", 0),
    ("victim_shared", 0),
    ("victim_bytes_a_flop", 0),
    ("victim_core_rate", 0),
    ("victim_cores", 0),
    ("victim_private", 0),
    ("others_stream", 1),
    ("others_reuse", 1),
    ("others_shared", 1),
    ("others_beside", 1),
    ("others_cores", 1),
    ("others_spill", 1),
    ("all_stream", 1),
    ("all_reuse", 1),
    ("all_shared", 1),
    ("before_bytes", 1),
    ("victim_accesses", 0),
    ("victim_misses", 0),
    ("others_accesses", 1),
    ("others_misses", 1),
)
NAMES = tuple(name for name, _ in FEATURES)
MONOTONE = tuple(sign for _, sign in FEATURES)


def vector(sample: Sample, room: Room) -> list[float]:
    """The features of a sample in the order of `NAMES`."""
    victim, others = sample.victim, sample.others
    own, bandwidth, cache = victim.footprint, room.bandwidth, room.cache_bytes
    traffic = own.stream_bytes + own.reuse_bytes
    stream = sum(other.stream for other in others) / bandwidth
    reuse = sum(other.reuse for other in others) / bandwidth
    shared = sum(other.shared for other in others) / cache
    # What of a neighbour's working set exceeds its cores' part of the caches, and so its traffic.
    part = cache / room.cores
    spill = sum(o.reuse * max(0.0, 1 - part / max(1.0, o.footprint.shared_bytes)) for o in others)
    return [
        victim.stream / bandwidth,
        victim.reuse / bandwidth,
        own.shared_bytes / part,
        traffic / max(1.0, own.flops),
        traffic / victim.alone_ns / victim.cores / room.core_bandwidth,
        victim.cores / room.cores,
        own.private_bytes,
        stream,
        reuse,
        shared,
        sum(other.shared * other.beside for other in others) / cache,
        sum(other.cores for other in others) / room.cores,
        spill / bandwidth,
        stream + victim.stream / bandwidth,
        reuse + victim.reuse / bandwidth,
        shared + victim.shared / cache,
        _left_behind(sample.before),
        *_counted(sample, bandwidth),
    ]


def _left_behind(before: Party | None) -> float:
    """Bytes that may lie in the caches in place of the victim's."""
    if before is None:
        return 0.0
    return before.footprint.shared_bytes + before.footprint.private_bytes


def _counted(sample: Sample, bandwidth: float) -> list[float]:
    """Accesses and misses of the victim and of the others, if they are known of everybody."""
    parties = (sample.victim, *sample.others)
    known = [party.counted for party in parties if party.counted is not None]
    if len(known) < len(parties):
        return [np.nan] * 4
    others = [sum(pair[place] for pair in known[1:]) for place in (0, 1)]
    return [rate / bandwidth for rate in (*known[0], *others)]


def matrix(samples: Sequence[Sample], room: Room) -> Array:
    """[samples, features]."""
    rows: Any = [vector(sample, room) for sample in samples]
    return np.array(rows, np.float64).reshape(len(samples), len(NAMES))


def slowdowns(samples: Sequence[Sample]) -> Array:
    """What was measured [samples]."""
    return np.array([sample.slowdown for sample in samples], np.float64)
