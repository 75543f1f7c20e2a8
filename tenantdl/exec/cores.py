"""Pin a thread, and the workers that help it with parallel loops, to a group of cores.

Groups belong to threads, as affinities do: `pin` says where the calling thread's kernels run from
then on, and `group` is what `Runner` asks for. Workers are started when a kernel first needs them.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence

from tenantdl.bundle.library import Library, Pool
from tenantdl.errors import UserError
from tenantdl.ids import CoreId


class CoreGroup:
    """The calling thread on `cores[0]`, a worker on each of the others."""

    def __init__(self, cores: Sequence[CoreId]) -> None:
        self.cores = tuple(cores)
        self._pool: Pool | None = None

    def pool(self, library: Library) -> Pool | None:
        """The group's workers, started now if need be; None for a single core. Any library's pool
        runs the kernels of all."""
        if self._pool is None and len(self.cores) > 1:
            self._pool = Pool(library, self.cores)
        return self._pool


class _Local(threading.local):
    group: CoreGroup | None = None


_local = _Local()


def pin(cores: Sequence[CoreId]) -> None:
    """Run this thread's kernels on exactly `cores`, one thread a core.

    Raises UserError for an empty group or a core that this process may not use.
    """
    if not cores:
        raise UserError("a core group needs at least one core")
    before = os.sched_getaffinity(0)
    for core in cores[::-1]:  # each must be allowed; the caller stays on the first
        try:
            os.sched_setaffinity(0, {core})
        except OSError as error:
            os.sched_setaffinity(0, before)
            raise UserError(f"cannot pin to core {core}: {error.strerror}") from error
    if _local.group is None or _local.group.cores != tuple(cores):
        _local.group = CoreGroup(cores)


def group() -> CoreGroup:
    """The calling thread's group. A thread that was never pinned gets as many workers as it may use
    cores, wherever the system puts them."""
    if _local.group is None:
        _local.group = CoreGroup([CoreId(-1)] * len(os.sched_getaffinity(0)))
    return _local.group
