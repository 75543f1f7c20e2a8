"""A connection over HTTP: inferences are ours, everything else is uvicorn's.

A client says the same head again and again: what was parsed once is known by its bytes. The body of
a large request is received where it stays.

A request that takes too long to arrive is cut off. A client that sends the next request before the
answer is there gets the answer, then the connection is closed: it will ask again.
"""

from __future__ import annotations

import asyncio
import re
import zlib
from http import HTTPStatus
from typing import Any

import msgspec
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from tenantdl.daemon.eager import begin
from tenantdl.daemon.protocol.codings import CODINGS
from tenantdl.daemon.protocol.http_body import BodyIgnorer, BodyReader, HeadReader
from tenantdl.daemon.protocol.http_infer import Head, HttpInference, read_head
from tenantdl.daemon.protocol.inference import Gate

# Heads that a connection remembers, and how long they may be; bodies worth a reader of their own.
_HEADS_MAX, _HEAD_BYTES_MAX = 16, 4096
_LARGE_BYTES = 32 * 1024
_INFER = re.compile(rb"/v2/models/([^/?]+)(?:/versions/([^/?]+))?/infer/?(?:\?.*)?")


class _Cycle:
    """What uvicorn looks at when a connection ends or the server stops."""

    def __init__(self, keep_alive: bool) -> None:
        self.message_event = asyncio.Event()
        self.response_complete = False
        self.disconnected = False
        self.keep_alive = keep_alive


class Connection(HttpToolsProtocol):
    """A connection whose inferences are ours. `connection_class` sets `gate` in a subclass."""

    gate: Gate
    request_s_max: float
    _inference: HttpInference | None = None
    _answering: asyncio.Task[None] | None = None
    _patience: asyncio.TimerHandle | None = None
    _ignoring = False
    # Whether no request has begun to arrive; of a body whose head was known, bytes to come.
    _between = True
    _to_come = 0
    _head = b""

    def connection_made(self, transport: Any) -> None:
        """A client has come; it must not take forever to say what it wants."""
        super().connection_made(transport)
        self._heads: dict[bytes, Head] = {}
        self._reader = HeadReader(self)
        if self.scheme == "http":
            transport.set_protocol(self._reader)
        self._expect()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nobody waits for an answer any more."""
        if self._patience:
            self._patience.cancel()
        if self._answering:
            self._answering.cancel()
        elif self._inference:
            self._inference.release()
        super().connection_lost(exc)

    def _expect(self) -> None:
        if self._patience:
            self._patience.cancel()
        self._patience = self.loop.call_later(self.request_s_max, self._too_slow)

    def _too_slow(self) -> None:
        """The rest of a request has not come in time."""
        if not self.transport.is_closing():
            self._write(408, [msgspec.json.encode({"error": "the request took too long"})], None)
            self.transport.close()

    def data_received(self, data: bytes) -> None:
        """More of one request. A client that sends the next one without waiting is closed after the
        answer: it will ask again."""
        self._ignoring = self._ignoring or self._answering is not None
        if self._ignoring:
            return
        if self._to_come:
            self._body(memoryview(data))
            return
        self._head = b""
        if self._between:
            end = data.find(b"\r\n\r\n", 0, _HEAD_BYTES_MAX) + 4
            self._head = data[:end] if end > 3 else b""
            if known := self._heads.get(self._head):
                self._known(known, memoryview(data)[end:])
                return
        super().data_received(data)

    def _known(self, head: Head, body: memoryview) -> None:
        """A request begins whose head was parsed before."""
        self._unset_keepalive_if_required()
        self.cycle = _Cycle(keep_alive=True)  # type: ignore[assignment]
        self._inference = HttpInference(self.gate, head)
        if self._inference.hopeless:
            self._ignoring = True
            self._finish()
            return
        self._to_come = self._inference.declared
        if len(body) > self._to_come:  # the next request: too early
            self._ignoring, body = True, body[: self._to_come]
        self._body(body)
        if self._to_come and self._patience is None:
            self._expect()
        if self._to_come > _LARGE_BYTES and self.scheme == "http":
            if self._inference.ignored:
                file = self.transport.get_extra_info("socket").fileno()
                self._switch(BodyIgnorer(self, self._to_come, file))
            elif (room := self._inference.room()) is not None:
                self._switch(BodyReader(self, room))

    def _body(self, body: memoryview) -> None:
        if self._inference is None:
            return
        if len(body) > self._to_come:
            self._ignoring, body = True, body[: self._to_come]
        self._to_come -= len(body)
        if not self._inference.feed(body):
            self._ignoring, self._to_come = True, 0
            self._finish()
        elif not self._to_come:
            self._arrived()

    def body_filled(self, count: int) -> None:
        """`count` bytes were written where the body goes."""
        self._to_come -= count
        if self._inference is not None:
            self._inference.filled(count)
        if not self._to_come:
            self._switch(self._reader)
            self._arrived()

    def _switch(self, protocol: asyncio.BaseProtocol) -> None:
        self.transport.pause_reading()
        self.transport.set_protocol(protocol)
        self.transport.resume_reading()

    def _arrived(self) -> None:
        if self._inference is not None:
            self._inference.arrived_whole()
        if self._patience:
            self._patience.cancel()
            self._patience = None
        self._finish()

    def on_message_begin(self) -> None:
        """A request begins."""
        self._ignoring = self._ignoring or self._answering is not None
        if self._ignoring:
            return
        self._between = False
        if self._patience is None:
            self._expect()
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """Part of a request's path."""
        if not self._ignoring:
            super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header."""
        if not self._ignoring:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """A request's head is there: is it ours?"""
        if self._ignoring:
            return
        path = _INFER.fullmatch(self.url) if self.parser.get_method() == b"POST" else None
        if path is None:
            super().on_headers_complete()
            return
        if self.cycle is not None and not self.cycle.response_complete:
            # Sent before the answer to another route was there.
            self._ignoring, self.cycle.keep_alive = True, False
            return
        self.cycle = _Cycle(self.parser.should_keep_alive())  # type: ignore[assignment]
        head = read_head(path, self.headers)
        self._inference = HttpInference(self.gate, head)
        plain = self.parser.get_http_version() == "1.1" and self.parser.should_keep_alive()
        plain = plain and not (self.expect_100_continue or self.parser.should_upgrade())
        if plain and head.length is not None and self._head and len(self._heads) < _HEADS_MAX:
            self._heads[self._head] = head
        refused = self._inference.error is not None and self.expect_100_continue
        if self._inference.hopeless or refused:  # the rest of it need not come
            self._ignoring = True
            self._finish()
        elif self.expect_100_continue:
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        """Part of a request's body."""
        if self._ignoring:
            return
        if self._inference is None:
            super().on_body(body)
        elif not self._inference.feed(body):
            self._ignoring = True
            self._finish()

    def on_message_complete(self) -> None:
        """A request has arrived whole."""
        if self._ignoring:
            return
        self._between = True
        if self._inference is not None:
            self._arrived()
            return
        if self._patience:
            self._patience.cancel()
            self._patience = None
        super().on_message_complete()

    def _finish(self) -> None:
        if self._inference is not None:
            self._answering = begin(self._answer(self._inference))
            if self._answering:
                self.tasks.add(self._answering)

    async def _answer(self, inference: HttpInference) -> None:
        try:
            status, chunks, length = await inference.answer()
            if not self.transport.is_closing():
                self._write(status, chunks, length, inference.response_coding)
        finally:
            if self._answering:
                self.tasks.discard(self._answering)
            self._answering = self._inference = None
            self.cycle.response_complete = True
        if not self.cycle.keep_alive or self._ignoring:
            self.transport.close()
        else:
            self.on_response_complete()

    def _write(
        self, status: int, chunks: list[bytes], json_length: int | None, coding: bytes = b""
    ) -> None:
        head = [b"HTTP/1.1 %d %s\r\n" % (status, _phrase(status))]
        if coding:
            packing = zlib.compressobj(wbits=CODINGS[coding])
            chunks = [*(packing.compress(chunk) for chunk in chunks), packing.flush()]
            head.append(b"content-encoding: %s\r\n" % coding)
        if json_length is None:
            head.append(b"content-type: application/json\r\n")
        else:
            head.append(b"content-type: application/octet-stream\r\n")
            head.append(b"inference-header-content-length: %d\r\n" % json_length)
        size = sum(len(chunk) for chunk in chunks)
        closing = b"" if self.cycle and self.cycle.keep_alive and not self._ignoring else _CLOSE
        head.append(b"content-length: %d\r\n%s\r\n" % (size, closing))
        self.transport.writelines([*head, *chunks])


_CLOSE = b"connection: close\r\n"


def _phrase(status: int) -> bytes:
    try:
        return HTTPStatus(status).phrase.encode()
    except ValueError:
        return b"Client Closed Request"


def connection_class(gate: Gate, request_s_max: float) -> type[Connection]:
    """The class of connections to `gate`, for uvicorn's `http`."""
    return type("GateConnection", (Connection,), {"gate": gate, "request_s_max": request_s_max})
