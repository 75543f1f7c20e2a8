"""Processes that do not outlive the one that started them."""

from __future__ import annotations

import ctypes
import signal

_PR_SET_PDEATHSIG = 1
# Found now: after a fork a lock of the linker may be held for ever.
_prctl = ctypes.CDLL(None).prctl


def end_with_parent(number: signal.Signals = signal.SIGKILL) -> None:
    """Have the system send this process that signal when the thread that started it ends: one that
    hangs would never notice by itself. To be called in the child (`preexec_fn`)."""
    _prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)
