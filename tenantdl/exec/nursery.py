"""The owner's side of templates: loads and unloads models, one change after the other, and has
lanes forked from the newest template.

A change is made in a fork of the present template. If all goes well the fork takes its place (the
next *generation*); if it fails, crashes or takes too long, nothing has changed but the log.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import logging
import os
import select
import signal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from tenantdl.errors import ExecutionError, UserError
from tenantdl.exec.endings import has_ended
from tenantdl.exec.lane_memory import ModelLayout
from tenantdl.exec.program_set import ProgramSet
from tenantdl.exec.template_wire import (
    Command,
    Failed,
    Fork,
    Here,
    Spawn,
    Spawned,
    Unload,
    listen,
    tell,
)
from tenantdl.units import SECOND, Ns

_log = logging.getLogger(__name__)

_LOAD_MAX = Ns(300 * SECOND)
_PR_SET_CHILD_SUBREAPER = 36
_STARTS_MAX = 3


@dataclass(slots=True)
class Change:
    """Programs that come, programs that go. `done` is told what went wrong, None if nothing."""

    add: tuple[ProgramSet, ...]
    remove: tuple[ProgramSet, ...]
    done: Callable[[Exception | None], None]


@dataclass(slots=True)
class _Template:
    """`steps`: what it has to answer before it can be used. `process`: if it was not forked."""

    sock: socket.socket
    born: Ns
    process: subprocess.Popen[bytes] | None = None
    pid: int = 0
    steps: deque[tuple[Command, list[int]]] = field(default_factory=deque)

    def gone(self) -> bool:
        """Whether it has ended; its remains are taken away."""
        if self.process:
            return self.process.poll() is not None
        return not self.pid or has_ended(self.pid)


class Nursery:
    """Registers what it listens to in `epoll`; call `poll` whenever that stirs."""

    def __init__(self, backend: str, epoll: select.epoll) -> None:
        self._backend = backend
        self._epoll = epoll
        self._bases = itertools.count(1 << 10, 1 << 10)
        self._sets: dict[int, ProgramSet] = {}
        self._queue: deque[Change] = deque()
        self._working: Change | None = None
        self._candidate: _Template | None = None
        self._current: _Template | None = None
        self._alive, self._alive_end = os.pipe()
        self._leaving: list[_Template] = []
        self._deaths = 0
        # Changes that were made, until all lanes know them.
        self.settling: list[Change] = []
        self.generation = 0
        self.serving = False

    @property
    def idle(self) -> bool:
        """Whether lanes can be forked and no change is on its way."""
        return self._current is not None and not (self._queue or self._candidate)

    @property
    def at_rest(self) -> bool:
        """Whether there is nothing to do, unless a template stirs."""
        return self.idle and not (self._leaving or self.settling)

    def make(self, layout: ModelLayout) -> ProgramSet:
        """Memory for one more set of programs; a change has to bring it in."""
        return ProgramSet(next(self._bases), layout)

    def start(self, now: Ns) -> None:
        """Start the first template, with what was loaded before, if anything."""
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)
        ours, theirs = _sockets()
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "tenantdl.exec.template"),
                *(self._backend, str(theirs.fileno()), str(self._alive)),
            ],
            pass_fds=[theirs.fileno(), self._alive],
            stdin=subprocess.DEVNULL,
            env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
            start_new_session=True,  # Ctrl-C is for the daemon, which stops its lanes in order
        )
        theirs.close()
        loads = [one.load(idle=self.serving, fresh=False) for one in self._sets.values()]
        self._try(_Template(ours, now, process), loads)

    def submit(self, change: Change) -> None:
        """Make `change` after those that were submitted before it."""
        self._queue.append(change)

    def spawn(self, command: Spawn, files: Sequence[int]) -> bool:
        """Have a lane forked; `poll` says when it lives. False if that cannot be at the moment."""
        if self._current is None:
            return False
        try:
            tell(self._current.sock, command, files)
        except OSError:  # it has just died: `poll` will find out
            return False
        return True

    def poll(self, now: Ns) -> list[Spawned]:
        """Take in what templates have said. Raises ExecutionError when none can be started."""
        spawned: list[Spawned] = []
        for message in self._messages(self._current):
            if message is None:
                _log.error("the template has died; another is made")
                self._current = None
            elif isinstance(message, Spawned):
                spawned.append(message)
        for message in self._messages(self._candidate):
            match message:
                case None:
                    self._give_up(ExecutionError("the process that loaded it died"))
                case Here():
                    self._candidate_is(message.pid)
                case Failed():
                    self._give_up(UserError(message.reason))
                case _:
                    self._step()
        candidate = self._candidate
        if candidate and candidate.pid and now - candidate.born > _LOAD_MAX:
            os.kill(candidate.pid, signal.SIGKILL)
        self._leaving = [template for template in self._leaving if not template.gone()]
        self._go_on(now)
        return spawned

    def settle(self) -> None:
        """All lanes are of the present generation: what was removed is nobody's any more."""
        settled, self.settling = self.settling, []
        for change in settled:
            for one in change.remove:
                one.close()
            change.done(None)

    def close(self) -> None:
        """Let templates and lanes go. Idempotent."""
        for template in (self._current, self._candidate):
            if template:
                self._drop(template)
        self._current = self._candidate = None
        if self._alive_end >= 0:
            os.close(self._alive_end)
            os.close(self._alive)
            self._alive_end = -1
        for template in self._leaving:
            if not template.gone():
                # It may be in the middle of loading.
                os.kill(template.pid, signal.SIGKILL)
                has_ended(template.pid, wait=True)
        for one in self._sets.values():
            one.close()
        self._sets.clear()

    # --- steps of a change

    def _go_on(self, now: Ns) -> None:
        if self._candidate is not None:
            return
        if self._current is None:
            self._deaths += 1
            if self._deaths > _STARTS_MAX:
                raise ExecutionError("the process that lanes are made from dies again and again")
            self.start(now)
            return
        if not self._queue:
            return
        change = self._working = self._queue.popleft()
        ours, theirs = _sockets()
        with contextlib.suppress(OSError):  # it has just died: the candidate hangs up then
            tell(self._current.sock, Fork(), [theirs.fileno()])
        theirs.close()
        steps: list[tuple[Command, list[int]]] = [(Unload(s.base), []) for s in change.remove]
        steps += [one.load(idle=self.serving, fresh=True) for one in change.add]
        self._try(_Template(ours, now), steps)

    def _try(self, template: _Template, steps: Sequence[tuple[Command, list[int]]]) -> None:
        template.steps.extend(steps)
        self._candidate = template
        self._epoll.register(template.sock, select.EPOLLIN)

    def _candidate_is(self, pid: int) -> None:
        if self._candidate:
            self._candidate.pid = pid
            self._next()

    def _step(self) -> None:
        if self._candidate:
            self._candidate.steps.popleft()
            self._next()

    def _next(self) -> None:
        """The candidate's next step; after the last it is the template."""
        candidate = self._candidate
        if candidate is None:
            return
        if candidate.steps:
            with contextlib.suppress(OSError):  # it has just died
                tell(candidate.sock, *candidate.steps[0])
            return
        if self._current:
            self._drop(self._current)
        self._current, self._candidate = candidate, None
        self.generation += 1
        if change := self._working:
            for one in change.remove:
                del self._sets[one.base]
            self._sets |= {one.base: one for one in change.add}
            self.settling.append(change)
            self._working = None
            self._deaths = 0

    def _give_up(self, error: Exception) -> None:
        if self._candidate:
            self._drop(self._candidate)
            self._candidate = None
        change, self._working = self._working, None
        if change is None:
            raise ExecutionError(f"the process that lanes are made from does not start: {error}")
        for one in change.add:
            one.close()
        change.done(error)

    def _drop(self, template: _Template) -> None:
        with contextlib.suppress(KeyError, ValueError, FileNotFoundError):
            self._epoll.unregister(template.sock)
        template.sock.close()
        self._leaving.append(template)

    def _messages(self, template: _Template | None) -> Iterator[object]:
        """What `template` has said, as long as it is wanted; None at the end when it is gone."""
        while template is not None and template.sock.fileno() >= 0:
            try:
                message = listen(template.sock)
            except BlockingIOError:
                return
            except OSError:
                message = None
            if message is None:
                self._drop(template)
            yield message


def _sockets() -> tuple[socket.socket, socket.socket]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    return ours, theirs
