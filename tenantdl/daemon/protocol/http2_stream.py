"""One stream of an HTTP/2 connection: what is to be sent waits here for the client's windows."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from tenantdl.daemon.protocol.http2_wire import (
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    NO_ERROR,
    RST_STREAM,
    WINDOW_MAX,
    WINDOW_UPDATE,
    frame_head,
    number_frame,
)

if TYPE_CHECKING:
    from tenantdl.daemon.protocol.http2 import Connection

Bytes = bytes | memoryview


class Receiver(Protocol):
    """What a stream is for."""

    def data(self, data: memoryview) -> None:
        """More of it; the view is valid during the call."""

    def room(self, most: int) -> memoryview | None:
        """Where the next bytes, `most` at most, may be written at once; None: nowhere."""

    def filled(self, count: int) -> None:
        """So many bytes were written there."""

    def ended(self) -> None:
        """That was all."""

    def gone(self) -> None:
        """Nobody waits for an answer any more."""

    def drained(self) -> None:
        """All that was to be sent so far has been."""

    def check(self, before: float) -> None:
        """Give up what has been arriving since a time `before` (of the loop)."""


class Stream:
    """`window`: how much the client takes now. `closed`: nothing is sent or wanted any more."""

    receiver: Receiver

    def __init__(self, connection: Connection, number: int, window: int, granted: int) -> None:
        """`granted`: how much the client may send."""
        self.number, self.window, self.closed = number, window, False
        self._connection, self._granted = connection, granted
        self._waiting: deque[memoryview] = deque()
        self._trailers: bytes | None = None
        self._ended = False

    # --- in

    def take(self, data: memoryview) -> None:
        """More data."""
        self.receiver.data(data)

    def room(self, most: int) -> memoryview | None:
        """Where more data may be written at once."""
        return self.receiver.room(most)

    def filled(self, count: int) -> None:
        """It was."""
        self.receiver.filled(count)

    def end(self) -> None:
        """The client has said all."""
        if not self._ended:
            self._ended = True
            self.receiver.ended()

    def took(self, count: int) -> bool:
        """Whether the client was allowed to send `count` bytes more, and does not go on after its
        end."""
        self._granted -= count
        return self._granted >= 0 and not self._ended

    def grant(self, count: int) -> None:
        """The client may send `count` bytes more."""
        count = min(count, WINDOW_MAX - self._granted)
        if count > 0 and not self.closed:
            self._granted += count
            self._connection.write([number_frame(WINDOW_UPDATE, self.number, count)])

    # --- out

    @property
    def blocked(self) -> bool:
        """Whether the client has not taken all that is to be sent."""
        return bool(self._waiting)

    def send(
        self, chunks: Sequence[Bytes], *, headers: bytes | None, trailers: bytes | None
    ) -> None:
        """Header block, data and block of trailers, which ends the stream."""
        if self.closed:
            return
        out: list[Bytes] = []
        if headers is not None:
            flags = END_HEADERS
            out += [frame_head(HEADERS, flags, self.number, len(headers)), headers]
        self._waiting.extend(memoryview(chunk) for chunk in chunks if len(chunk))
        self._trailers = trailers
        self._fill(out)
        self._connection.write(out)

    def pump(self) -> None:
        """Send more of what waits, after a window has grown."""
        out: list[Bytes] = []
        self._fill(out)
        self._connection.write(out)
        if not self._waiting and not self.closed:
            self.receiver.drained()

    def _fill(self, out: list[Bytes]) -> None:
        """What can be sent now, as frames, to `out`."""
        connection = self._connection
        while self._waiting:
            size = min(
                sum(map(len, self._waiting)),
                *(self.window, connection.window, connection.frame_max),
            )
            if size <= 0 or connection.paused:
                return
            self.window -= size
            connection.window -= size
            out.append(frame_head(DATA, 0, self.number, size))
            while size:
                first = self._waiting.popleft()
                if len(first) > size:
                    self._waiting.appendleft(first[size:])
                    first = first[:size]
                out.append(first)
                size -= len(first)
        if self._trailers is not None:
            flags = END_HEADERS | END_STREAM
            out += [frame_head(HEADERS, flags, self.number, len(self._trailers)), self._trailers]
            if not self._ended:  # the client need not go on
                out.append(number_frame(RST_STREAM, self.number, NO_ERROR))
            self.closed = True
            connection.forget(self)
