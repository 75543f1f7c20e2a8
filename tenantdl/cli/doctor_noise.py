"""Who else is on this machine: time the host took away (steal), pressure, and a short probe that
spins on every core and looks at how often and how long it was interrupted."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from tenantdl.cli.doctor_check import Check, told
from tenantdl.ids import CoreId
from tenantdl.units import MS, US, from_seconds, to_ms

_STAT = Path("/proc/stat")
_PRESSURE = Path("/proc/pressure")
# A loop of Python takes less than a microsecond: what is longer was an interruption.
_GAP_MIN = 20 * US
_GAP_BAD = 2 * MS
_LOST_BAD = 0.02
_STEAL_BAD = 0.01
_PRESSURE_BAD = {"cpu": 20.0, "memory": 1.0, "io": 20.0}
# Spread over the machine: a big one is not probed for minutes.
_CORES_MAX = 8


class Interruptions(NamedTuple):
    """Of a core: time lost to others, as a share, and the longest gap in ns."""

    core: CoreId
    lost: float
    longest: int


def checks(cores: Sequence[CoreId], probe_s: float) -> Iterator[Check]:
    """Pressure always; steal and interruptions while a probe of `probe_s` a core runs."""
    if probe_s:
        before = _steal()
        step = max(1, len(cores) // _CORES_MAX)
        probed = [probe(core, probe_s) for core in cores[::step]]
        yield _stolen(before, _steal())
        yield _interrupted(probed)
    yield from _pressure()


def probe(core: CoreId, seconds: float) -> Interruptions:
    """Spin on `core` for so long."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        began = last = time.monotonic_ns()
        until = began + from_seconds(seconds)
        lost = longest = 0
        while last < until:
            now = time.monotonic_ns()
            gap = now - last
            if gap > _GAP_MIN:
                lost += gap
                longest = max(longest, gap)
            last = now
    finally:
        os.sched_setaffinity(0, allowed)
    return Interruptions(core, lost / max(1, last - began), longest)


def _interrupted(probed: Sequence[Interruptions]) -> Check:
    worst = max(probed, key=lambda found: (found.lost, found.longest))
    longest = max(found.longest for found in probed)
    found = f"up to {worst.lost:.1%} of core {worst.core} lost, longest gap {to_ms(longest):.2f} ms"
    if worst.lost > _LOST_BAD or longest > _GAP_BAD:
        advice = "other processes share these cores: move them (cpuset), or other [machine] cores"
        return Check("interruptions", "warn", found, advice)
    return Check("interruptions", "ok", found)


def _steal() -> tuple[int, int] | None:
    """Ticks stolen by the host, and all ticks, since boot."""
    fields = (told(_STAT) or "").partition("\n")[0].split()[1:]
    ticks = [int(field) for field in fields]
    return (ticks[7], sum(ticks[:8])) if len(ticks) >= 8 else None


def _stolen(before: tuple[int, int] | None, after: tuple[int, int] | None) -> Check:
    if before is None or after is None:
        return Check("stolen time", "ok", "not told")
    share = (after[0] - before[0]) / max(1, after[1] - before[1])
    since_boot = after[0] / max(1, after[1])
    found = f"{share:.1%} now, {since_boot:.1%} since boot"
    if max(share, since_boot) > _STEAL_BAD:
        advice = "the host is shared: dedicated cores, or wider latency targets"
        return Check("stolen time", "warn", found, advice)
    return Check("stolen time", "ok", found)


def _pressure() -> Iterator[Check]:
    """Share of the last ten seconds in which somebody waited (PSI)."""
    shares: dict[str, float] = {}
    for kind in _PRESSURE_BAD:
        text = told(_PRESSURE / kind) or ""
        for word in text.partition("\n")[0].split():
            if word.startswith("avg10="):
                shares[kind] = float(word.removeprefix("avg10="))
    if not shares:
        yield Check("pressure", "ok", "not told by this kernel (psi=1 at boot)")
        return
    found = ", ".join(f"{kind} {share:.0f} %" for kind, share in shares.items())
    bad = [kind for kind, share in shares.items() if share > _PRESSURE_BAD[kind]]
    if bad:
        advice = f"tasks wait for {' and '.join(bad)}: fewer of them, or limits for the others"
        yield Check("pressure", "warn", found, advice)
    else:
        yield Check("pressure", "ok", found)
