"""Pin a thread, and the pool that TVM keeps for it, to a group of cores.

TVM's pool is thread-local: every calling thread has its own. `config_threadpool` pins the pool's
workers but not the caller, which runs the first chunk, so both are set here.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from tenantdl.bundle.library import runtime
from tenantdl.errors import UserError
from tenantdl.exec.denormals import flush_denormals
from tenantdl.ids import CoreId

# threading::ThreadGroup::AffinityMode: one given core a thread.
_SPECIFY_ONE_CORE_PER_THREAD = -2


def pin(cores: Sequence[CoreId]) -> None:
    """Run this thread's kernels on exactly `cores`, one thread a core, denormals flushed to zero.

    The first call in a process fixes the largest pool (TVM_NUM_THREADS, by default all usable
    cores). Raises UserError for an empty group or a core that this process may not use.
    """
    if not cores:
        raise UserError("a core group needs at least one core")
    try:
        os.sched_setaffinity(0, set(cores))
    except OSError as error:
        raise UserError(f"cannot pin to cores {list(cores)}: {error.strerror}") from error
    flush_denormals()  # before the pool's threads are made, which inherit it
    configure = runtime().get_global_func("runtime.config_threadpool")
    configure(_SPECIFY_ONE_CORE_PER_THREAD, len(cores), [str(core) for core in cores])
    # Creating the pool resets nothing of ours, but the caller must stay on the group's first core:
    # its chunk is the first, and the workers hold the others.
    os.sched_setaffinity(0, {cores[0]})
