"""HTTP/2 from bytes to frames. Data of a large message is received where it stays."""

from __future__ import annotations

import struct
from typing import Protocol

from tenantdl.daemon.protocol.http2_wire import (
    BLOCK_BYTES_MAX,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    FRAME_BYTES_MAX,
    FRAME_SIZE_ERROR,
    HEADERS,
    PADDED,
    PREFACE,
    PRIORITISED,
    PROTOCOL_ERROR,
    ConnectionFault,
)

_HEAD = struct.Struct(">BHBBI")
_SCRATCH_BYTES = 1 << 16


class Taker(Protocol):
    """A stream, as far as data comes in."""

    closed: bool

    def take(self, data: memoryview) -> None:
        """More data; the view is valid during the call."""

    def room(self, most: int) -> memoryview | None:
        """Where the next bytes, `most` at most, may be written at once; None: nowhere."""

    def filled(self, count: int) -> None:
        """So many bytes were written there."""

    def end(self) -> None:
        """That was all."""


class Sink(Protocol):
    """Who is told of frames. All may raise ConnectionFault."""

    def on_data(self, stream: int, length: int) -> Taker | None:
        """DATA of `length` bytes (padding included) begins; None if nobody wants it any more."""

    def on_headers(self, stream: int, block: bytes, ends: bool) -> None:
        """A whole header block; `ends`: nothing follows on the stream."""

    def on_frame(self, kind: int, flags: int, stream: int, body: memoryview) -> None:
        """Any other frame."""


class FrameReader:
    """`buffer` says where to receive, `received` takes in what has come."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._scratch = memoryview(bytearray(_SCRATCH_BYTES))
        self._end = 0
        self._taker: Taker | None = None
        self._direct = False
        # Of the DATA frame being read: bytes of data and padding to come, whether it is the last.
        self._data_left = self._padding_left = 0
        self._ends = False
        # The header block being read: stream, whether it ends it, the bytes so far.
        self._block: tuple[int, bool, bytearray] | None = None
        self.started = False

    def buffer(self) -> memoryview:
        """Where the next bytes go."""
        taker = self._taker
        if self._data_left and not self._end and taker is not None and not taker.closed:
            room = taker.room(self._data_left)
            if room is not None:
                self._direct = True
                return room
        self._direct = False
        return self._scratch[self._end :]

    def received(self, count: int) -> None:
        """`count` bytes were written to `buffer`. Raises ConnectionFault."""
        if self._direct and self._taker is not None:
            self._data_left -= count
            self._taker.filled(count)
            self._data_done()
            return
        data, begin, end = self._scratch, 0, self._end + count
        if not self.started:
            if data[: min(end, len(PREFACE))] != PREFACE[:end]:
                raise ConnectionFault(PROTOCOL_ERROR, "this is not HTTP/2")
            if end >= len(PREFACE):
                self.started, begin = True, len(PREFACE)
        while self.started and (after := self._step(data, begin, end)) > begin:
            begin = after
        rest = end - begin
        if begin and rest:
            data[:rest] = bytes(data[begin:end])
        self._end = rest

    def _step(self, data: memoryview, begin: int, end: int) -> int:
        """Take in one frame, or what is there of its data; where to go on (`begin`: more is
        needed)."""
        if self._data_left:
            take = min(self._data_left, end - begin)
            self._data_left -= take
            if take and self._taker is not None and not self._taker.closed:
                self._taker.take(data[begin : begin + take])
            self._data_done()
            return begin + take
        if self._padding_left:
            take = min(self._padding_left, end - begin)
            self._padding_left -= take
            return begin + take
        if end - begin < _HEAD.size:
            return begin
        head: tuple[int, ...] = _HEAD.unpack_from(data, begin)
        high, low, kind, flags, stream = head
        length, stream = high << 16 | low, stream & 0x7FFFFFFF
        if self._block and (kind != CONTINUATION or stream != self._block[0]):
            raise ConnectionFault(PROTOCOL_ERROR, "a header block is not over")
        if kind == DATA:
            return self._begin_data(data, begin, end, length, flags, stream)
        if length > BLOCK_BYTES_MAX:
            raise ConnectionFault(FRAME_SIZE_ERROR, f"a frame of {length} bytes")
        after = begin + _HEAD.size + length
        if after > end:
            return begin
        self._frame(kind, flags, stream, data[begin + _HEAD.size : after])
        return after

    def _begin_data(
        self, data: memoryview, begin: int, end: int, length: int, flags: int, stream: int
    ) -> int:
        if length > FRAME_BYTES_MAX:
            raise ConnectionFault(FRAME_SIZE_ERROR, f"a frame of {length} bytes")
        padding, at = 0, begin + _HEAD.size
        if flags & PADDED:
            if not length:
                raise ConnectionFault(FRAME_SIZE_ERROR, "padding beyond the frame")
            if at >= end:
                return begin
            padding, at = int(data[at]), at + 1
            if padding >= length:
                raise ConnectionFault(PROTOCOL_ERROR, "padding beyond the frame")
        self._taker = self._sink.on_data(stream, length)
        self._data_left = length - padding - (at - begin - _HEAD.size)
        self._padding_left, self._ends = padding, bool(flags & END_STREAM)
        self._data_done()
        return at

    def _data_done(self) -> None:
        if not self._data_left and self._taker is not None:
            taker, self._taker = self._taker, None
            if self._ends and not taker.closed:
                taker.end()

    def _frame(self, kind: int, flags: int, stream: int, body: memoryview) -> None:
        if kind == HEADERS:
            padding = 0
            if flags & PADDED:
                padding, body = body[0] if body else 1, body[1:]
            if flags & PRIORITISED:
                body = body[5:]
            if padding > len(body):
                raise ConnectionFault(PROTOCOL_ERROR, "padding beyond the frame")
            block = bytearray(body[: len(body) - padding])
            self._block = (stream, bool(flags & END_STREAM), block)
        elif kind == CONTINUATION:
            if self._block is None:
                raise ConnectionFault(PROTOCOL_ERROR, "CONTINUATION of nothing")
            self._block[2].extend(body)
            if len(self._block[2]) > BLOCK_BYTES_MAX:
                raise ConnectionFault(FRAME_SIZE_ERROR, "headers are too long")
        else:
            self._sink.on_frame(kind, flags, stream, body)
            return
        if flags & END_HEADERS and self._block is not None:
            (stream, ends, block), self._block = self._block, None
            self._sink.on_headers(stream, bytes(block), ends)
