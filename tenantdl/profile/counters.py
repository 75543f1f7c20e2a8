"""Hardware counters through perf_event_open(2), where there is a PMU and one may use it.

Optional: virtual machines mostly have none, and predictors do without. `open_counters` answers None
then. Counts are of the calling thread, in user space: cycles, instructions, accesses to and misses
of the last-level cache.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from collections.abc import Callable
from typing import NamedTuple

# perf_event_attr: the first 64 bytes are enough (PERF_ATTR_SIZE_VER0).
_ATTRIBUTES = struct.Struct("=IIQQQQQIIQ")
_HARDWARE = 0
_DISABLED, _EXCLUDE_KERNEL, _EXCLUDE_HYPERVISOR = 1 << 0, 1 << 5, 1 << 6
# read_format: time enabled and running, to scale counts that took turns on the PMU.
_TIMES = 3
_ENABLE, _DISABLE, _RESET = 0x2400, 0x2401, 0x2403
_SYSCALL = {"x86_64": 298, "aarch64": 241}
# PERF_COUNT_HW_…: cycles, instructions, cache references, cache misses.
EVENTS = (0, 1, 2, 3)
_UNAVAILABLE = (
    errno.ENOENT,
    errno.EACCES,
    errno.EPERM,
    errno.ENOSYS,
    errno.ENODEV,
    errno.EOPNOTSUPP,
)

# (attributes, pid, cpu, group, flags) → file descriptor, or −errno.
Open = Callable[[bytes, int, int, int, int], int]


class Counts(NamedTuple):
    """What was counted."""

    cycles: float
    instructions: float
    cache_accesses: float
    cache_misses: float


class Counters:
    """Open counters; `with` starts and stops them."""

    def __init__(self, files: list[int], control: Callable[[int, int, int], object]) -> None:
        self._files = files
        self._control = control

    def __enter__(self) -> Counters:
        for request in (_RESET, _ENABLE):
            for file in self._files:
                self._control(file, request, 0)
        return self

    def __exit__(self, *error: object) -> None:
        for file in self._files:
            self._control(file, _DISABLE, 0)

    def read(self) -> Counts:
        """Counts since the last `with`, scaled up where an event was counted part of the time."""
        return Counts(*(_scaled(os.read(file, 24)) for file in self._files))

    def close(self) -> None:
        """Give the descriptors back. Idempotent."""
        files, self._files = self._files, []
        for file in files:
            os.close(file)


def open_counters(opener: Open | None = None) -> Counters | None:
    """Counters of this thread, None where there are none to be had. Raises OSError for what is
    wrong otherwise."""
    import fcntl

    opener = _perf_event_open if opener is None else opener
    files: list[int] = []
    for event in EVENTS:
        flags = _DISABLED | _EXCLUDE_KERNEL | _EXCLUDE_HYPERVISOR
        attributes = _ATTRIBUTES.pack(
            *(_HARDWARE, _ATTRIBUTES.size, event, 0, 0, _TIMES, flags, 0, 0, 0)
        )
        file = opener(attributes, 0, -1, -1, 0)
        if file < 0:
            for other in files:
                os.close(other)
            if -file in _UNAVAILABLE:
                return None
            raise OSError(-file, os.strerror(-file))
        files.append(file)
    return Counters(files, fcntl.ioctl)


def _scaled(raw: bytes) -> float:
    value, enabled, running = struct.unpack("=QQQ", raw)
    return value * enabled / running if running else 0.0


def _perf_event_open(attributes: bytes, pid: int, cpu: int, group: int, flags: int) -> int:
    number = _SYSCALL.get(platform.machine())
    if number is None:
        return -errno.ENOSYS
    libc = ctypes.CDLL(None, use_errno=True)
    buffer = ctypes.create_string_buffer(attributes, len(attributes))
    libc.syscall.restype = ctypes.c_long
    file = libc.syscall(
        ctypes.c_long(number),
        buffer,
        ctypes.c_int(pid),
        ctypes.c_int(cpu),
        ctypes.c_int(group),
        ctypes.c_ulong(flags),
    )
    return int(file) if file >= 0 else -ctypes.get_errno()
