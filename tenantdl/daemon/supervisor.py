"""Keeps a daemon up: starts it again when it crashes, kills it when it answers nobody.

The daemon is a subprocess that ends with its supervisor. What it ended with decides: 0 (told to
stop) and 2 (bad workload) are the end; anything else is a crash. A daemon that crashes again and
again is started after 0.1, 0.2, 0.4 … s; clients see refused connections meanwhile.
"""

from __future__ import annotations

import contextlib
import logging
import signal
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from types import FrameType

from tenantdl.lifetime import end_with_parent

_log = logging.getLogger(__name__)
_FINAL = (0, 2)
_RESTART_FIRST_S, _RESTART_LAST_S = 0.1, 10.0
# Who lived for so long had started well.
_LIVED_S = 30.0
# How often it is asked for a sign of life, for how long, and how often in vain.
_PULSE_S, _PATIENCE_S, _MISSED_MAX = 1.0, 5.0, 3


class Supervisor:
    """Runs `command` again and again. `url`: where it says that it lives (None: not asked)."""

    def __init__(self, command: Sequence[str], url: str | None) -> None:
        self._command = list(command)
        self._url = url
        self._stop = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None

    def run(self) -> int:
        """Until it ends for good; its exit code. SIGTERM and SIGINT are passed on. To be called
        from the main thread."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._pass_on)
        crashes = 0
        while True:
            started = time.monotonic()
            code = self._once()
            if code in _FINAL or self._stop.is_set():
                return max(code, 0)
            crashes = 0 if time.monotonic() - started > _LIVED_S else crashes + 1
            wait = min(_RESTART_FIRST_S * 2 ** max(0, crashes - 1), _RESTART_LAST_S)
            _log.error("the daemon ended with %d: started again in %.1f s", code, wait)
            if self._stop.wait(wait):
                return 0

    def _once(self) -> int:
        self._process = process = subprocess.Popen(
            self._command, preexec_fn=lambda: end_with_parent(signal.SIGTERM)
        )
        missed, lived = 0, False
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                return process.wait(_PULSE_S)
            if self._url is None or self._stop.is_set():
                continue
            alive = _is_alive(self._url)
            lived |= alive
            missed = 0 if alive else missed + 1
            if lived and missed >= _MISSED_MAX:
                _log.error("the daemon answers nobody: killed")
                process.kill()

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        self._stop.set()
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)


def _is_alive(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=_PATIENCE_S) as response:
            return bool(response.status == 200)
    except urllib.error.HTTPError:
        return True  # it says no, but it says something
    except OSError:
        return False
