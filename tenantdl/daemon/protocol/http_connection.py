"""A connection over HTTP: inferences are ours, everything else is uvicorn's.

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

from tenantdl.daemon.protocol.codings import CODINGS
from tenantdl.daemon.protocol.http_infer import HttpInference
from tenantdl.daemon.protocol.inference import Gate

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

    def connection_made(self, transport: Any) -> None:
        """A client has come; it must not take forever to say what it wants."""
        super().connection_made(transport)
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
        if not self._ignoring:
            super().data_received(data)

    def on_message_begin(self) -> None:
        """A request begins."""
        self._ignoring = self._ignoring or self._answering is not None
        if self._ignoring:
            return
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
        self._inference = HttpInference(self.gate, path, self.headers)
        if self._inference.hopeless:
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
        if self._patience:
            self._patience.cancel()
            self._patience = None
        if self._inference is None:
            super().on_message_complete()
        else:
            self._finish()

    def _finish(self) -> None:
        if self._inference is not None:
            self._answering = self.loop.create_task(self._answer(self._inference))
            self.tasks.add(self._answering)

    async def _answer(self, inference: HttpInference) -> None:
        try:
            status, chunks, length = await inference.answer()
            if not self.transport.is_closing():
                self._write(status, chunks, length, inference.response_encoding)
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
