"""gRPC over a stream of HTTP/2: messages behind their lengths, a status at the end.
Reference: https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md
"""

from __future__ import annotations

import asyncio
import logging
import struct
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tenantdl.daemon.eager import begin
from tenantdl.daemon.protocol.access import Caller
from tenantdl.daemon.protocol.codings import CODINGS, decompressed
from tenantdl.daemon.protocol.http2_stream import Bytes, Stream
from tenantdl.daemon.protocol.http2_wire import STREAM_WINDOW, header_block
from tenantdl.daemon.protocol.inference import Gate
from tenantdl.daemon.protocol.refusals import ProtocolError, as_protocol_error
from tenantdl.units import Ns

_log = logging.getLogger(__name__)
_CODES = {400: 3, 401: 16, 403: 7, 404: 5, 408: 4, 413: 8, 429: 8, 499: 1, 501: 12, 503: 14}
_INTERNAL = 13
_PREFIX = struct.Struct(">BI")
_HEAD = b"\x88" + header_block(
    [(b"content-type", b"application/grpc"), (b"grpc-accept-encoding", b"identity,deflate,gzip")]
)
_OK = header_block([(b"grpc-status", b"0")])
# Messages of one stream that are worked on at once, and that are read ahead.
_RUNNING_MAX, _AHEAD_MAX = 64, 1024
# A stream's window is filled up after so many bytes, and for every message that is larger.
_GRANT = STREAM_WINDOW // 4

Metadata = Mapping[str, str]
# (who asks, message, what was sent beside it, when it came) → the answer's bytes.
Call = Callable[[Caller | None, memoryview, Metadata, Ns], Awaitable[Sequence[Bytes]]]


@dataclass(frozen=True, slots=True)
class Method:
    """A call. `streams`: many messages, an answer each. `is_open`: for everybody."""

    call: Call
    streams: bool = False
    is_open: bool = False


def known(error: Exception) -> ProtocolError:
    """What a client is told of `error`; what is nobody's fault is logged."""
    found = as_protocol_error(error)
    if found is None:
        _log.error("a request has found a bug", exc_info=error)
        found = ProtocolError(500, f"internal error: {type(error).__name__}")
    return found


class GrpcStream:
    """A call on its way: an `http2_stream.Receiver`."""

    def __init__(
        self, stream: Stream, gate: Gate, method: Method, metadata: Metadata, bytes_max: int
    ) -> None:
        self._stream, self._gate, self._method = stream, gate, method
        self._metadata, self._bytes_max = metadata, bytes_max
        self._arrived = Ns(time.monotonic_ns())
        self._loop = asyncio.get_running_loop()
        self._since: float | None = self._loop.time()
        self._prefix = bytearray()
        self._body: memoryview | None = None
        self._packed, self._at = False, 0
        self._messages: deque[memoryview] = deque()
        self._running: dict[asyncio.Task[None], int] = {}
        # Reserved for the message that is being read; taken in since the client was granted more.
        self._size = self._used = 0
        self._over = self._headed = False
        self._caller: Caller | None = None
        try:
            self._coding = metadata.get("grpc-encoding", "identity").encode()
            if self._coding not in (b"identity", *CODINGS):
                raise ProtocolError(501, "messages are neither gzip nor deflate")
            if not method.is_open:
                self._caller = gate.access.caller(metadata.get("authorization"))
                gate.service.stir()
        except Exception as error:
            self._fail(error)

    # --- messages in

    def data(self, data: memoryview) -> None:
        """More of a message, or of several."""
        while len(data) and not self._stream.closed:
            if self._body is None:
                need = _PREFIX.size - len(self._prefix)
                self._prefix += data[:need]
                data = data[need:]
                if len(self._prefix) == _PREFIX.size:
                    self._begin()
                continue
            take = min(len(data), len(self._body) - self._at)
            self._body[self._at : self._at + take] = data[:take]
            data = data[take:]
            self.filled(take)

    def room(self, most: int) -> memoryview | None:
        """The rest of the message that is being read."""
        body = self._body
        return None if body is None else body[self._at : self._at + most]

    def filled(self, count: int) -> None:
        """So much of it has come."""
        self._at += count
        if self._body is not None and self._at == len(self._body):
            body, self._body, self._since = self._body, None, None
            self._message(body)

    def _begin(self) -> None:
        """A message begins. Its size is bounded before memory is taken."""
        packed, size = _PREFIX.unpack(self._prefix)
        self._prefix.clear()
        try:
            if size > self._bytes_max:
                raise ProtocolError(413, f"message of {size} bytes; at most {self._bytes_max}")
            if packed and self._coding == b"identity":
                raise ProtocolError(400, "a packed message, but not how")
            if len(self._messages) >= _AHEAD_MAX:
                raise ProtocolError(429, "too many messages wait")
            self._reserve(size)
        except ProtocolError as error:
            self._fail(error)
            return
        self._packed, self._at, self._size = bool(packed), 0, size
        self._body = np.empty(size, np.uint8).data
        self._since = self._loop.time()
        if size > _GRANT:
            self._stream.grant(size)
        self.filled(0)

    def _message(self, body: memoryview) -> None:
        try:
            if self._packed:
                body = memoryview(decompressed(body, self._coding, self._bytes_max))
                self._reserve(len(body) - self._size)
                self._size = len(body)
            if not self._method.streams and (self._messages or self._running):
                raise ProtocolError(400, "more than one message")
        except ProtocolError as error:
            self._fail(error)
            return
        self._messages.append(body)
        self._size = 0
        if self._method.streams:
            self._start()

    def _reserve(self, size: int) -> None:
        """Raises ProtocolError when requests take too much memory already."""
        if size > self._gate.bytes_left:
            raise ProtocolError(429, "too many bytes of requests are being read")
        self._gate.bytes_left -= size

    def ended(self) -> None:
        """No more messages come."""
        self._over, self._since = True, None
        if self._body is not None or self._prefix:
            self._fail(ProtocolError(400, "the message is not whole"))
        elif not (self._messages or self._running or self._method.streams):
            self._fail(ProtocolError(400, "there is no message"))
        else:
            self._start()

    def gone(self) -> None:
        """Nobody waits any more."""
        for task in self._running:
            task.cancel()
        self._gate.bytes_left += self._size + sum(map(len, self._messages))
        self._messages.clear()
        self._body, self._size = None, 0

    def drained(self) -> None:
        """The client has taken our answers: it may ask more."""
        self._start()

    def check(self, before: float) -> None:
        """A message, or the first of it, has taken too long."""
        if self._since is not None and self._since < before:
            self._fail(ProtocolError(408, "the request took too long"))

    # --- answers out

    def _start(self) -> None:
        while self._messages and len(self._running) < _RUNNING_MAX and not self._stream.blocked:
            body = self._messages.popleft()
            if task := begin(self._answer(body)):
                self._running[task] = len(body)
                task.add_done_callback(self._done)
            else:
                self._gate.bytes_left += len(body)
            self._used += min(len(body), _GRANT) + _PREFIX.size
            if self._used > _GRANT:
                self._stream.grant(self._used)
                self._used = 0
        if self._over and self._method.streams and not (self._messages or self._running):
            self._send((), end=True)

    async def _answer(self, body: memoryview) -> None:
        arrived = Ns(time.monotonic_ns()) if self._method.streams else self._arrived
        try:
            chunks = await self._method.call(self._caller, body, self._metadata, arrived)
        except Exception as error:
            self._fail(error)
        else:
            prefix = _PREFIX.pack(0, sum(map(len, chunks)))
            self._send((prefix, *chunks), end=not self._method.streams)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._gate.bytes_left += self._running.pop(task)
        if self._method.streams and not self._stream.closed:
            self._start()

    def _send(self, chunks: Sequence[Bytes], *, end: bool) -> None:
        headers = None if self._headed else _HEAD
        self._headed = True
        self._stream.send(chunks, headers=headers, trailers=_OK if end else None)

    def _fail(self, error: Exception) -> None:
        """End the call with a status that is not OK."""
        said = known(error)
        status = [
            (b"grpc-status", b"%d" % _CODES.get(said.status, _INTERNAL)),
            (b"grpc-message", _escaped(said.message)),
        ]
        head = b"" if self._headed else _HEAD
        self._stream.send((), headers=None, trailers=head + header_block(status))
        self.gone()


def _escaped(message: str) -> bytes:
    """As gRPC has it: printable ASCII, the rest as %XX."""
    return b"".join(
        bytes((byte,)) if 0x20 <= byte <= 0x7E and byte != 0x25 else b"%%%02X" % byte
        for byte in message.encode()
    )
