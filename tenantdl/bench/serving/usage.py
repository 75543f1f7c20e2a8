"""What a process and its children use, from /proc: time, memory, descriptors, threads."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from tenantdl.units import SECOND

_PROC = Path("/proc")
_TICK_NS = SECOND // os.sysconf("SC_CLK_TCK")
# Fields of /proc/PID/stat after the name in parentheses.
_PARENT, _USER, _SYSTEM, _USER_REAPED, _SYSTEM_REAPED, _THREADS = 1, 11, 12, 13, 14, 17


class Usage(NamedTuple):
    """Sums over a process and all below it. `cpu_ns`: processor time, that of children which were
    waited for included. `memory_bytes`: proportional share where the system tells it, so that what
    is shared counts once. `shared_bytes`: of it, shared memory."""

    processes: int
    cpu_ns: int
    memory_bytes: int
    shared_bytes: int
    descriptors: int
    threads: int


def cpu_ns(pid: int) -> int:
    """Processor time of `pid` and all below it, in ns (0 if it is gone)."""
    return sum(_cpu(fields) for fields in _below(pid).values())


def usage(pid: int) -> Usage:
    """Everything about `pid` and all below it."""
    below = _below(pid)
    memory = [_memory(number) for number in below]
    return Usage(
        processes=len(below),
        cpu_ns=sum(_cpu(fields) for fields in below.values()),
        memory_bytes=sum(total for total, _ in memory),
        shared_bytes=sum(shared for _, shared in memory),
        descriptors=sum(_descriptors(number) for number in below),
        threads=sum(int(fields[_THREADS]) for fields in below.values()),
    )


def children(pid: int) -> list[int]:
    """All processes below `pid`, without itself."""
    return [number for number in _below(pid) if number != pid]


def _below(pid: int) -> dict[int, list[str]]:
    """The fields of `pid` and of everything below it, by process id."""
    fields: dict[int, list[str]] = {}
    kids: dict[int, list[int]] = {}
    for entry in _PROC.iterdir():
        if not entry.name.isdigit():
            continue
        try:
            text = (entry / "stat").read_text()
        except OSError:  # gone meanwhile
            continue
        number = int(entry.name)
        # The name may hold spaces and parentheses; what follows its last one does not.
        fields[number] = text[text.rindex(")") + 2 :].split()
        kids.setdefault(int(fields[number][_PARENT]), []).append(number)
    found: dict[int, list[str]] = {}
    todo = [pid]
    while todo:
        number = todo.pop()
        if number in fields:
            found[number] = fields[number]
            todo += kids.get(number, [])
    return found


def _cpu(fields: list[str]) -> int:
    parts = (_USER, _SYSTEM, _USER_REAPED, _SYSTEM_REAPED)
    return sum(int(fields[part]) for part in parts) * _TICK_NS


def _memory(pid: int) -> tuple[int, int]:
    """Proportional share of memory, and of shared memory, in bytes."""
    try:
        lines = (_PROC / str(pid) / "smaps_rollup").read_text().splitlines()
    except OSError:
        return 0, 0
    kib = {line.split(":")[0]: line.split()[1] for line in lines[1:] if ":" in line}
    return int(kib.get("Pss", 0)) * 1024, int(kib.get("Pss_Shmem", 0)) * 1024


def _descriptors(pid: int) -> int:
    try:
        return len(os.listdir(_PROC / str(pid) / "fd"))
    except OSError:
        return 0
