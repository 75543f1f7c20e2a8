"""Pin a thread, and the workers that help it with parallel loops, to a group of cores.

Groups belong to threads, as affinities do: `pin` says where the calling thread's kernels run from
then on, `choose` narrows that, block by block, to some of the cores, and `group` is what `Runner`
asks for. Workers are started when a kernel first needs them.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator, Sequence

from tenantdl.bundle.library import Library, Pool
from tenantdl.errors import ExecutionError, UserError
from tenantdl.ids import CoreId


class CoreGroup:
    """The calling thread on `cores[0]`, and workers for the others. `chosen` are the cores in use,
    all of them at first."""

    def __init__(self, cores: Sequence[CoreId]) -> None:
        self.cores = tuple(cores)
        self.chosen = self.cores
        self._pool: Pool | None = None

    def choose(self, cores: Sequence[CoreId]) -> None:
        """Use these of the group's `cores` from now on; the thread's own has to be among them.
        Raises ExecutionError."""
        chosen = tuple(cores)
        if self.cores[0] not in chosen or not set(chosen) <= set(self.cores):
            raise ExecutionError(f"cores {chosen} for a thread on the first of {self.cores}")
        self.rest()
        self.chosen = chosen
        if self._pool:
            self._pool.choose(self._places())

    def rest(self) -> None:
        """No work follows soon: workers leave their cores to others at once."""
        if self._pool and len(self.chosen) > 1:
            self._pool.rest()

    def pool(self, library: Library) -> Pool | None:
        """The group's workers, started now if need be; None for a single core. Any library's pool
        runs the kernels of all."""
        if len(self.chosen) == 1:
            return None
        if self._pool is None:
            self._pool = Pool(library, self.cores)
            self._pool.choose(self._places())
        return self._pool

    def _places(self) -> list[int]:
        if self.chosen == self.cores:  # also where all are the same: "any"
            return list(range(1, len(self.cores)))
        return [self.cores.index(core) for core in self.chosen if core != self.cores[0]]


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
    else:
        _local.group.choose(cores)


def group() -> CoreGroup:
    """The calling thread's group. A thread that was never pinned gets as many workers as it may use
    cores, wherever the system puts them."""
    if _local.group is None:
        _local.group = CoreGroup([CoreId(-1)] * len(os.sched_getaffinity(0)))
    return _local.group


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Run this thread's kernels without workers, wherever the system puts it."""
    before = _local.group
    _local.group = CoreGroup([CoreId(-1)])
    try:
        yield
    finally:
        _local.group = before
