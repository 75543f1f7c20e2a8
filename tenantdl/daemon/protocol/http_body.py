"""A large body over HTTP is received where it stays."""

from __future__ import annotations

import asyncio
from typing import Protocol

# Where bodies go that nobody wants, all of them.
_NOWHERE = memoryview(bytearray(256 * 1024))


class Owner(Protocol):
    """The connection that it belongs to."""

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


class BodyReader(asyncio.BufferedProtocol):
    """Stands in for a connection while the rest of a large body comes."""

    def __init__(self, connection: Owner, room: memoryview) -> None:
        self._connection, self._room = connection, room

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where it goes."""
        return self._room

    def buffer_updated(self, count: int) -> None:
        """So much has come."""
        self._room = self._room[count:]
        self._connection.body_filled(count)

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


class BodyIgnorer(BodyReader):
    """The same for a body that nobody wants: it all goes into one small piece of memory."""

    def __init__(self, connection: Owner, size: int) -> None:
        super().__init__(connection, _NOWHERE)
        self._left = size

    def get_buffer(self, sizehint: int) -> memoryview:
        """What is overwritten by whatever comes next."""
        return self._room[: self._left]

    def buffer_updated(self, count: int) -> None:
        """So much has come."""
        self._left -= count
        self._connection.body_filled(count)
