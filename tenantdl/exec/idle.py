"""Work in time that nobody else wants.

Who has entered the class of idle work may be forbidden to leave it (without CAP_SYS_NICE, or an
RLIMIT_NICE that allows nice 0), so threads of their own do such work.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from pathlib import Path

NICE = 10


def only_idle() -> None:
    """From now on this thread runs when nobody else wants its core."""
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


def as_others() -> bool:
    """This thread runs like any other from now on; False if that is forbidden."""
    try:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    except OSError:
        return False
    return True


def give_way() -> None:
    """This thread, and those that it starts, get less of a core that others want as well: what
    brings lanes their work and takes it away is short, and late if it waits for a block to end.
    Where the system shares cores among sessions (autogroup), the same for this one."""
    os.setpriority(os.PRIO_PROCESS, 0, max(NICE, os.getpriority(os.PRIO_PROCESS, 0)))
    with contextlib.suppress(OSError):
        Path("/proc/self/autogroup").write_text(str(NICE))


def may_return() -> bool:
    """Whether who has entered the class of idle work may leave it."""
    answers: list[bool] = []
    aside(lambda: answers.append(as_others()))
    return answers == [True]


def aside(work: Callable[[], None], *, idle: bool = True, patience_s: float | None = None) -> None:
    """Do `work` in another thread, in idle time if so; return when it is done, or goes on alone
    after `patience_s`."""

    def run() -> None:
        if idle:
            only_idle()
        work()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(patience_s)
