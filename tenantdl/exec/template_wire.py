"""What lanes' owner and the template process say to each other: typed JSON over a socket of whole
messages. A message to the template lies in a memory file (it may be long), further files with it.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence

import msgspec

from tenantdl.exec.lane_memory import ModelLayout
from tenantdl.ids import CoreId, LaneId

REPLY_BYTES_MAX = 16 * 1024
REASON_LENGTH_MAX = 4000
_FILES_MAX = 8


class _Message(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    pass


class Fork(_Message, frozen=True, tag=True):
    """Make a template like yourself that listens to the file that comes along."""


class Load(_Message, frozen=True, tag=True):
    """Open the programs of `layout`, numbered from `base`; slots and arenas come along. `idle`: in
    time that nobody else wants. `fresh`: nobody uses slots and arenas yet."""

    base: int
    layout: ModelLayout
    idle: bool
    fresh: bool


class Unload(_Message, frozen=True, tag=True):
    """Close the programs that were loaded from `base` on."""

    base: int


class Spawn(_Message, frozen=True, tag=True):
    """Start a lane; the files of its channel, its bell and its owner's doorbell come along. `cores`
    are its own, `machine` those of all lanes. `idle`: in time that nobody else wants."""

    lane: LaneId
    cores: tuple[CoreId, ...]
    machine: tuple[CoreId, ...]
    spin_ns: int
    idle: bool


class Here(_Message, frozen=True, tag=True):
    """A new template listens. The first word of every one."""

    pid: int


class Done(_Message, frozen=True, tag=True):
    """A Load or an Unload was carried out."""


class Failed(_Message, frozen=True, tag=True):
    """A Load was not: nothing of it is left."""

    reason: str


class Spawned(_Message, frozen=True, tag=True):
    """A lane lives."""

    lane: LaneId
    pid: int


Command = Fork | Load | Unload | Spawn
Reply = Here | Done | Failed | Spawned
_command_decoder = msgspec.json.Decoder(Command)
_reply_decoder = msgspec.json.Decoder(Reply)
_encode = msgspec.json.Encoder().encode


def tell(sock: socket.socket, command: Command, files: Sequence[int] = ()) -> None:
    """Send `command` to a template. Raises OSError when it is gone."""
    told = os.memfd_create("tenantdl-told", os.MFD_CLOEXEC)
    try:
        os.write(told, _encode(command))
        socket.send_fds(sock, [b"."], [told, *files])
    finally:
        os.close(told)


def hear(sock: socket.socket) -> tuple[Command, list[int]] | None:
    """In the template: the next command and its files; None when the owner has gone."""
    try:
        data, files, _, _ = socket.recv_fds(sock, 1, _FILES_MAX)
    except ConnectionResetError:  # it did not wait for our last answer
        return None
    if not data:
        return None
    told, *others = files
    try:
        return _command_decoder.decode(os.pread(told, os.fstat(told).st_size, 0)), others
    finally:
        os.close(told)


def reply(sock: socket.socket, message: Reply) -> None:
    """In the template: answer."""
    sock.send(_encode(message))


def listen(sock: socket.socket) -> Reply | None:
    """What a template has answered; None when it is gone. Raises BlockingIOError for nothing."""
    data = sock.recv(REPLY_BYTES_MAX)
    return _reply_decoder.decode(data) if data else None
