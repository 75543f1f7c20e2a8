"""How bytes of a connection over HTTP are received: heads in small pieces, a large body where it
stays."""

from __future__ import annotations

import asyncio
import ctypes
import socket
from typing import Protocol

# Where heads come to, of all connections, and what of a body comes along. Event loops read four
# times as much at once, and copy it into memory that is new each time.
_HEADS = memoryview(bytearray(64 * 1024))
# Where bodies go that nobody wants, all of them.
_NOWHERE = memoryview(bytearray(256 * 1024))
_AWAY = socket.MSG_TRUNC | socket.MSG_DONTWAIT
_libc = ctypes.CDLL(None)
_libc.recv.restype = ctypes.c_ssize_t


class Owner(Protocol):
    """The connection that it belongs to."""

    def data_received(self, data: bytes) -> None:
        """More of a request."""

    def body_filled(self, count: int) -> None:
        """So many bytes of the body have come."""

    def eof_received(self) -> None:
        """The client says no more."""

    def connection_lost(self, exc: Exception | None) -> None:
        """It has gone."""

    def pause_writing(self) -> None:
        """It does not read."""

    def resume_writing(self) -> None:
        """It reads again."""


class HeadReader(asyncio.BufferedProtocol):
    """Stands in for a connection while it waits for requests."""

    def __init__(self, connection: Owner) -> None:
        self._connection = connection

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where it goes."""
        return _HEADS

    def buffer_updated(self, count: int) -> None:
        """So much has come."""
        self._connection.data_received(_HEADS[:count].tobytes())

    def eof_received(self) -> None:
        """The client says no more."""
        self._connection.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """It has gone."""
        self._connection.connection_lost(exc)

    def pause_writing(self) -> None:
        """As the connection."""
        self._connection.pause_writing()

    def resume_writing(self) -> None:
        """As the connection."""
        self._connection.resume_writing()


class BodyReader(HeadReader):
    """The same while the rest of a large body comes."""

    def __init__(self, connection: Owner, room: memoryview) -> None:
        super().__init__(connection)
        self._room = room

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where it goes."""
        return self._room

    def buffer_updated(self, count: int) -> None:
        """So much has come."""
        self._room = self._room[count:]
        self._connection.body_filled(count)


class BodyIgnorer(BodyReader):
    """The same for a body that nobody wants: what has come is thrown away by the system, which need
    not copy it for that (tcp(7), MSG_TRUNC); the rest goes into one small piece of memory."""

    def __init__(self, connection: Owner, size: int, file: int) -> None:
        """`size` bytes are to come on the socket with descriptor `file`."""
        super().__init__(connection, _NOWHERE)
        self._left, self._file = size, file

    def get_buffer(self, sizehint: int) -> memoryview:
        """What is overwritten by whatever comes next."""
        # The last byte is left to the loop, which has to see the end.
        gone = _libc.recv(self._file, None, ctypes.c_size_t(self._left - 1), _AWAY)
        if gone > 0:
            self.buffer_updated(gone)
        return self._room[: self._left]

    def buffer_updated(self, count: int) -> None:
        """So much has come."""
        self._left -= count
        self._connection.body_filled(count)
