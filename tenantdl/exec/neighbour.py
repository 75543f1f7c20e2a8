"""Neighbours: processes that keep a core busy, stopped and let go by their owner.

A neighbour's program writes one byte to its output when it is ready to work, and works until its
input closes. Between `go` and `stop` it runs, so that a victim has it in every other turn.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Sequence

from tenantdl.errors import ExecutionError, UserError
from tenantdl.exec.stress import KINDS, READY
from tenantdl.ids import CoreId
from tenantdl.lifetime import end_with_parent

_START_S = 120.0


class Neighbour:
    """One process; stopped at first."""

    def __init__(self, command: Sequence[str]) -> None:
        """`command`: arguments behind the interpreter, of a program that keeps the protocol."""
        self._process = subprocess.Popen(
            [sys.executable, *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
            preexec_fn=end_with_parent,
        )
        out = self._process.stdout
        if out is None or not select.select([out], [], [], _START_S)[0] or out.read(1) != READY:
            self.close()
            raise ExecutionError("a neighbour did not start")
        self.stop()

    def __enter__(self) -> Neighbour:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def stop(self) -> None:
        """Not a cycle more until `go`."""
        self._process.send_signal(signal.SIGSTOP)

    def go(self) -> None:
        """At work again. Raises ExecutionError if it has died."""
        if self._process.poll() is not None:
            raise ExecutionError("a neighbour has died")
        self._process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.communicate()


def of_stress(kind: str, core: CoreId) -> Neighbour:
    """A stressor on `core`. Raises UserError for a kind that there is not."""
    if kind not in KINDS:
        raise UserError(f"stressor {kind!r} is unknown; known: {', '.join(KINDS)}")
    return Neighbour(["-m", "tenantdl.exec.stress", kind, str(core)])
