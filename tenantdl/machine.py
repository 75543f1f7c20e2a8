"""What machine this is: usable cores, caches, instruction sets. Read from Linux, never guessed.

Usable cores follow the affinity mask and the cgroup quota, not the number of processors.
"""

from __future__ import annotations

import math
import os
import platform
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

from tenantdl.ids import CoreId

_SYS_CPU = Path("/sys/devices/system/cpu")
_KIB = {"K": 1024, "M": 1024**2, "G": 1024**3}


@dataclass(frozen=True, slots=True)
class Caches:
    """Cache sizes in bytes: L1 data and L2 of a core, L3 of the socket (0: there is none)."""

    l1d_bytes: int
    l2_bytes: int
    l3_bytes: int


@dataclass(frozen=True, slots=True)
class Machine:
    """One machine. `features` are the flags of /proc/cpuinfo; `memory_bytes` is the total."""

    model: str
    arch: str
    cores: tuple[CoreId, ...]
    caches: Caches
    features: frozenset[str]
    memory_bytes: int

    def describe(self) -> dict[str, object]:
        """The machine as plain data for results and manifests (features sorted)."""
        return {
            "model": self.model,
            "arch": self.arch,
            "cores": list(self.cores),
            "caches": asdict(self.caches),
            "features": sorted(self.features),
            "memory_bytes": self.memory_bytes,
        }


@lru_cache(maxsize=1)
def this_machine() -> Machine:
    """The machine this process runs on, restricted to the cores that it may use."""
    info = _cpuinfo()
    flags = info.get("flags") or info.get("Features") or ""
    return Machine(
        model=info.get("model name", platform.processor() or "unknown"),
        arch=platform.machine(),
        cores=usable_cores(),
        caches=_caches(),
        features=frozenset(flags.split()),
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
    )


def usable_cores() -> tuple[CoreId, ...]:
    """Cores in the affinity mask, cut to the cgroup's CPU quota (rounded down, at least one)."""
    allowed = sorted(os.sched_getaffinity(0))
    quota = quota_cores()
    if quota is not None:
        allowed = allowed[: max(1, math.floor(quota))]
    return tuple(CoreId(core) for core in allowed)


def quota_cores() -> float | None:
    """CPU quota in cores of this process's cgroup (v2, then v1); None where unlimited."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        pass
    try:
        base = Path("/sys/fs/cgroup/cpu")
        quota_us = int((base / "cpu.cfs_quota_us").read_text())
        period_us = int((base / "cpu.cfs_period_us").read_text())
    except (OSError, ValueError):
        return None
    return quota_us / period_us if quota_us > 0 and period_us > 0 else None


def _cpuinfo() -> dict[str, str]:
    """The first processor's entries of /proc/cpuinfo."""
    entries: dict[str, str] = {}
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return entries
    for line in text.split("\n\n", 1)[0].splitlines():
        key, _, value = line.partition(":")
        entries[key.strip()] = value.strip()
    return entries


def _caches() -> Caches:
    """Sizes from sysfs, with common ones (32 KiB, 1 MiB, none) where it tells nothing."""
    sizes = {"1Data": 32 * 1024, "2Unified": 1024**2, "3Unified": 0}
    for index in sorted((_SYS_CPU / "cpu0" / "cache").glob("index*")):
        try:
            level = (index / "level").read_text().strip()
            kind = (index / "type").read_text().strip()
            size = (index / "size").read_text().strip()
        except OSError:
            continue
        if size and size[-1] in _KIB:
            sizes[level + kind] = int(size[:-1]) * _KIB[size[-1]]
    return Caches(sizes["1Data"], sizes["2Unified"], sizes["3Unified"])
