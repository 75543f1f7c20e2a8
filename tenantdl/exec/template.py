"""The template: a process that has every model loaded and warm, and lanes are forked from it.

Lanes never load anything. A model is loaded in a fork of the newest template, so that one that
crashes or hangs takes nothing along; the fork then becomes the template, and lanes forked from it
take over from the old ones between two blocks. Code, tables and the interpreter are in memory once.

Started by `nursery` as `python -m tenantdl.exec.template BACKEND SOCKET ALIVE`. All that is forked
here becomes the owner's child (it is a subreaper), and ends when the owner's end of ALIVE closes.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NoReturn

from tenantdl import logs
from tenantdl.errors import UserError
from tenantdl.exec.idle import as_others, aside, give_way, may_return, only_idle
from tenantdl.exec.lane import LaneProcess, OwnerGone
from tenantdl.exec.lane_memory import Mapping
from tenantdl.exec.lane_wire import CHANNEL_BYTES, Channel
from tenantdl.exec.mapped import find_pages
from tenantdl.exec.programs import Loaded, load
from tenantdl.exec.template_wire import (
    REASON_LENGTH_MAX,
    Done,
    Failed,
    Fork,
    Here,
    Load,
    Reply,
    Spawn,
    Spawned,
    Unload,
    hear,
    reply,
)
from tenantdl.lifetime import end_with_parent

_log = logging.getLogger(__name__)
_PR_SET_NAME = 15
# A busy machine may have no idle time: then a lane serves while its pages are found.
_PATIENCE_S = 5.0


class Template:
    """What was loaded so far, by number. `serve` returns when the owner wants no more of it."""

    def __init__(self, backend: str, sock: socket.socket, alive_fd: int) -> None:
        self._backend: Any = importlib.import_module(backend)
        self._sock = sock
        self._alive_fd = alive_fd
        self._programs: dict[int, Loaded] = {}
        self._sizes: dict[int, int] = {}
        self._may_return = may_return()

    def serve(self) -> None:
        """Obey until the owner hangs up."""
        reply(self._sock, Here(os.getpid()))
        self._obey()

    def _obey(self) -> None:
        _name("tenantdl-load")
        while (heard := hear(self._sock)) is not None:
            command, files = heard
            match command:
                case Load():
                    reply(self._sock, self._load(command, *files))
                case Unload(base):
                    aside(partial(self._unload, base))
                    reply(self._sock, Done())
                case Fork():
                    self._fork(files[0])
                case Spawn():
                    self._spawn(command, *files)
            for file in files:
                os.close(file)
        only_idle()  # to take down what is mapped takes a while

    def _load(self, command: Load, slots_fd: int, arenas_fd: int) -> Reply:
        outcome: list[list[Loaded] | Exception] = []

        def work() -> None:
            try:
                outcome.append(load(command, slots_fd, arenas_fd, self._backend))
            except Exception as error:  # whatever is wrong with a model, say so
                outcome.append(error)
            gc.collect()
            gc.freeze()  # collecting would copy pages that lanes share

        aside(work, idle=command.idle)
        (result,) = outcome
        if isinstance(result, Exception):
            if not isinstance(result, UserError):
                _log.error("%s cannot be loaded", command.layout.bundle, exc_info=result)
            return Failed((str(result) or repr(result))[:REASON_LENGTH_MAX])
        self._programs |= dict(enumerate(result, command.base))
        self._sizes[command.base] = len(result)
        return Done()

    def _unload(self, base: int) -> None:
        for number in range(base, base + self._sizes.pop(base)):
            del self._programs[number]
        gc.unfreeze()
        gc.collect()
        gc.freeze()

    def _fork(self, file: int) -> None:
        sock = socket.socket(fileno=os.dup(file))

        def begin() -> None:
            if _detached(lambda pid: reply(sock, Here(pid))):
                as_others()
                os.close(file)
                self._sock.close()
                self._sock = sock
                self._obey()
                _end(0)

        aside(begin, idle=self._may_return)
        sock.close()

    def _spawn(self, command: Spawn, channel_fd: int, bell_fd: int, doorbell_fd: int) -> None:
        def begin() -> None:
            if _detached(lambda pid: reply(self._sock, Spawned(command.lane, pid))):
                self._sock.close()
                self._be_lane(command, channel_fd, bell_fd, doorbell_fd)

        aside(begin, idle=command.idle and self._may_return)

    def _be_lane(self, command: Spawn, channel_fd: int, bell_fd: int, doorbell_fd: int) -> NoReturn:
        code = 1
        try:
            _name(f"tenantdl-lane{command.lane}")
            # If it hangs when its owner dies, it would never see ALIVE close.
            end_with_parent()
            channel = Channel(Mapping(channel_fd, CHANNEL_BYTES).memory)
            aside(find_pages, idle=command.idle, patience_s=_PATIENCE_S)
            as_others()
            give_way()
            LaneProcess(
                command,
                self._backend,
                self._programs,
                channel,
                bell_fd=bell_fd,
                doorbell_fd=doorbell_fd,
                alive_fd=self._alive_fd,
            ).serve()
            code = 0
            only_idle()  # to take down what is mapped takes a while
        except OwnerGone:
            code = 0
        except BaseException:
            _log.exception("lane %d has ended", command.lane)
        finally:
            _end(code)


def _detached(announce: Callable[[int], None]) -> bool:
    """Fork twice: True in the grandchild, which the owner inherits from the child. The child tells
    the owner its number, so that it is known however early the grandchild dies."""
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return False
    between = os.getpid()
    if grandchild := os.fork():
        with contextlib.suppress(OSError):  # the owner has gone
            announce(grandchild)
        os._exit(0)
    while os.getppid() == between:  # only its own children can be waited for by the owner
        time.sleep(0.0002)
    return True


def _end(code: int) -> NoReturn:
    """Of a fork: nothing that it was forked from is closed."""
    logging.shutdown()
    os._exit(code)


def _name(name: str) -> None:
    """What the system's tools call this process (up to 15 letters)."""
    ctypes.CDLL(None).prctl(_PR_SET_NAME, name.encode()[:15])


def main(argv: Sequence[str]) -> None:
    """Serve the owner at the socket and the pipe whose descriptors `argv` names."""
    logs.set_up()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the daemon, which stops us
    backend, sock, alive = argv
    Template(backend, socket.socket(fileno=int(sock)), int(alive)).serve()


if __name__ == "__main__":
    main(sys.argv[1:])
