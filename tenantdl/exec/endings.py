"""How child processes end, and that nothing is left of them."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path


def has_ended(pid: int, *, wait: bool = False) -> bool:
    """Whether our child `pid` has ended (`wait` until it has); its remains are taken away."""
    if wait:
        exit_code(pid)
        return True
    try:
        return os.waitpid(pid, os.WNOHANG)[0] != 0
    except ChildProcessError:
        return not _exists(pid)


def exit_code(pid: int) -> int | None:
    """How our child `pid` ends (as `subprocess` has it), once it does; None for what is long gone.
    A process may be heard of before it is our child: its parent has yet to end."""
    while True:
        try:
            return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        except ChildProcessError:
            if not _exists(pid):
                return None
            time.sleep(0.0005)


def _exists(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def cause(code: int | None) -> str:
    """An exit code in words."""
    return f"exit code {code}" if code is None or code >= 0 else signal.Signals(-code).name
