"""HTTP/2 (RFC 9113) as far as gRPC needs it, on the daemon's own event loop.

A request comes in and its answer goes out without leaving the loop's thread. (grpcio's server has
threads of its own: every step of a request changes threads, and on an idle machine each of them is
a core that has to be woken.)

Everything is bounded: header blocks, streams, windows. A client that does not read is not read from
either. What is against the protocol ends the connection.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from hpack import Decoder, HPACKError

from tenantdl.daemon.protocol import http2_wire as wire
from tenantdl.daemon.protocol.http2_reader import FrameReader, Taker
from tenantdl.daemon.protocol.http2_stream import Bytes, Receiver, Stream
from tenantdl.daemon.protocol.http2_wire import ConnectionFault, frame, number_frame

_STREAMS_MAX = 1024
# What streams hold is bounded by their own windows, and by the bytes that messages may take in all.
_WINDOW = 1 << 30
# Streams that a client may open and take back in a row.
_RESETS_MAX = 1000
_WRITE_BYTES_HIGH = 4 << 20

Headers = Mapping[str, str]
Open = Callable[[Stream, Headers], Receiver]


class Limits(NamedTuple):
    """`connections` at a time; `patience_s`: how long a request may take to arrive."""

    connections: int
    patience_s: float


class Connection(asyncio.BufferedProtocol):
    """One client. `open_stream` is told of every new stream and its headers."""

    def __init__(self, open_stream: Open, everybody: set[Connection], limits: Limits) -> None:
        """`everybody`: all connections that are open."""
        self._open, self._everybody, self._limits = open_stream, everybody, limits
        self._loop = asyncio.get_running_loop()
        self._reader = FrameReader(self)
        self._hpack = Decoder(max_header_list_size=wire.BLOCK_BYTES_MAX)
        self._plain: tuple[bytes, Headers] = (b"", {})
        self.streams: dict[int, Stream] = {}
        self.window, self.frame_max, self.paused = wire.WINDOW_FIRST, wire.FRAME_FIRST, False
        self._initial_window = wire.WINDOW_FIRST
        self._last = self._resets = self._consumed = 0
        self._closing = False
        self._timer: asyncio.TimerHandle | None = None

    # --- the transport's side

    def connection_made(self, transport: Any) -> None:
        """Say what we take."""
        self._transport = transport
        if len(self._everybody) >= self._limits.connections:
            transport.abort()
            return
        self._everybody.add(self)
        transport.set_write_buffer_limits(_WRITE_BYTES_HIGH)
        settings = [
            (wire.STREAMS_MAX_IS, _STREAMS_MAX),
            (wire.INITIAL_WINDOW_IS, wire.STREAM_WINDOW),
            (wire.FRAME_MAX_IS, wire.FRAME_BYTES_MAX),
            (wire.LIST_MAX_IS, wire.BLOCK_BYTES_MAX),
        ]
        more = number_frame(wire.WINDOW_UPDATE, 0, _WINDOW - wire.WINDOW_FIRST)
        transport.write(wire.settings_frame(settings) + more)
        self._timer = self._loop.call_later(self._limits.patience_s, self._check)

    def connection_lost(self, error: Exception | None) -> None:
        """All streams are gone."""
        self._everybody.discard(self)
        self._closing = True
        if self._timer:
            self._timer.cancel()
        for stream in list(self.streams.values()):
            self._gone(stream)

    def pause_writing(self) -> None:
        """The client does not read: neither do we."""
        self.paused = True
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        """It reads again."""
        self.paused = False
        self._transport.resume_reading()
        self._pump()

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the next bytes go."""
        return self._reader.buffer()

    def buffer_updated(self, count: int) -> None:
        """So many bytes have come."""
        if self._closing:
            return
        try:
            self._reader.received(count)
        except ConnectionFault as fault:
            self.close(fault.code, str(fault))
        except HPACKError as error:
            self.close(wire.COMPRESSION_ERROR, type(error).__name__)

    def eof_received(self) -> bool:
        """The client says no more: nobody waits."""
        return False

    def write(self, chunks: Sequence[Bytes]) -> None:
        """Send frames."""
        if chunks and not self._transport.is_closing():
            self._transport.writelines(chunks)

    def close(self, code: int = wire.NO_ERROR, reason: str = "") -> None:
        """Say why, and hang up. Idempotent."""
        if not self._closing:
            self.go_away(code, reason)
            self._closing = True
            self._transport.close()

    def go_away(self, code: int = wire.NO_ERROR, reason: str = "") -> None:
        """Ask the client to open no more streams."""
        body = struct.pack(">II", self._last, code) + reason.encode()
        self.write([frame(wire.GOAWAY, 0, 0, body)])

    def _check(self) -> None:
        """Cut off who takes too long to say what they want."""
        if not self._reader.started:
            self.close(wire.ENHANCE_YOUR_CALM, "the request took too long")
            return
        before = self._loop.time() - self._limits.patience_s
        for stream in list(self.streams.values()):
            stream.receiver.check(before)
        self._timer = self._loop.call_later(self._limits.patience_s / 2, self._check)

    # --- streams

    def forget(self, stream: Stream) -> None:
        """`stream` has ended as it should."""
        self.streams.pop(stream.number, None)
        self._resets = 0

    def _gone(self, stream: Stream) -> None:
        self.streams.pop(stream.number, None)
        if not stream.closed:
            stream.closed = True
            stream.receiver.gone()

    def _pump(self) -> None:
        for stream in list(self.streams.values()):
            if stream.blocked:
                stream.pump()

    # --- what the reader has found

    def on_data(self, stream: int, length: int) -> Taker | None:
        """Data begins."""
        if not stream or stream > self._last:
            raise ConnectionFault(wire.PROTOCOL_ERROR, "DATA where there is no stream")
        self._consumed += length
        if self._consumed > _WINDOW // 2:
            self.write([number_frame(wire.WINDOW_UPDATE, 0, self._consumed)])
            self._consumed = 0
        found = self.streams.get(stream)
        if found is not None and not found.took(length):
            raise ConnectionFault(wire.FLOW_CONTROL_ERROR, "more data than was allowed")
        return found

    def on_headers(self, stream: int, block: bytes, ends: bool) -> None:
        """A request begins, or ends with trailers."""
        headers = self._decoded(block)
        found = self.streams.get(stream)
        if found is not None:
            if not ends:
                raise ConnectionFault(wire.PROTOCOL_ERROR, "headers in the middle of a stream")
            found.end()
            return
        if stream <= self._last:
            return  # of a stream that we have ended
        if not stream & 1:
            raise ConnectionFault(wire.PROTOCOL_ERROR, "not a client's stream")
        self._last = stream
        if len(self.streams) >= _STREAMS_MAX:
            self.write([number_frame(wire.RST_STREAM, stream, wire.REFUSED_STREAM)])
            return
        opened = Stream(self, stream, self._initial_window, wire.STREAM_WINDOW)
        self.streams[stream] = opened
        opened.receiver = self._open(opened, headers)
        if ends and not opened.closed:
            opened.end()

    def _decoded(self, block: bytes) -> Headers:
        """The headers. A block of nothing but references to the tables, which is what a client
        sends again and again, is decoded once."""
        if block == self._plain[0]:
            return self._plain[1]
        headers = {
            bytes(name).decode("latin-1"): bytes(value).decode("latin-1")
            for name, value in self._hpack.decode(block, raw=True)
        }
        # Other blocks may change the tables.
        plain = bool(block) and min(block) >= 0x80 and max(block) < 0xFF
        self._plain = (block, headers) if plain else (b"", {})
        return headers

    def on_frame(self, kind: int, flags: int, stream: int, body: memoryview) -> None:
        """Everything else. What is not known is ignored, as is PRIORITY; so is GOAWAY: the client
        will go."""
        if kind == wire.WINDOW_UPDATE:
            self._window_update(stream, _number(body))
        elif kind == wire.PING:
            if stream or len(body) != 8:
                raise ConnectionFault(wire.FRAME_SIZE_ERROR, "a bad PING")
            if not flags & wire.ACK:
                self.write([frame(wire.PING, wire.ACK, 0, bytes(body))])
        elif kind == wire.SETTINGS:
            self._settings(flags, stream, body)
        elif kind == wire.RST_STREAM:
            _number(body)
            if not stream or stream > self._last:
                raise ConnectionFault(wire.PROTOCOL_ERROR, "RST_STREAM of no stream")
            if found := self.streams.get(stream):
                self._resets += 1
                if self._resets > _RESETS_MAX:
                    raise ConnectionFault(wire.ENHANCE_YOUR_CALM, "too many streams taken back")
                self._gone(found)
        elif kind == wire.PUSH_PROMISE:
            raise ConnectionFault(wire.PROTOCOL_ERROR, "clients do not push")

    def _window_update(self, stream: int, more: int) -> None:
        if not stream:
            self.window += more
            if not more or self.window > wire.WINDOW_MAX:
                raise ConnectionFault(wire.FLOW_CONTROL_ERROR, "a window beyond its bounds")
            self._pump()
        elif found := self.streams.get(stream):
            found.window += more
            if not more or found.window > wire.WINDOW_MAX:
                raise ConnectionFault(wire.FLOW_CONTROL_ERROR, "a window beyond its bounds")
            if found.blocked:
                found.pump()

    def _settings(self, flags: int, stream: int, body: memoryview) -> None:
        if stream or len(body) % 6 or (flags & wire.ACK and len(body)):
            raise ConnectionFault(wire.FRAME_SIZE_ERROR, "bad SETTINGS")
        if flags & wire.ACK:
            return
        for name, value in struct.iter_unpack(">HI", body):
            if name == wire.INITIAL_WINDOW_IS:
                if value > wire.WINDOW_MAX:
                    raise ConnectionFault(wire.FLOW_CONTROL_ERROR, "a window beyond its bounds")
                for each in self.streams.values():
                    each.window += value - self._initial_window
                self._initial_window = value
            elif name == wire.FRAME_MAX_IS:
                if not wire.FRAME_FIRST <= value < 1 << 24:
                    raise ConnectionFault(wire.PROTOCOL_ERROR, "bad SETTINGS")
                self.frame_max = value
        self.write([frame(wire.SETTINGS, wire.ACK, 0, b"")])
        self._pump()


def _number(body: memoryview) -> int:
    """The one number of a frame, without its reserved bit. Raises ConnectionFault."""
    if len(body) != 4:
        raise ConnectionFault(wire.FRAME_SIZE_ERROR, "a frame of another length")
    return int.from_bytes(body, "big") & 0x7FFFFFFF
