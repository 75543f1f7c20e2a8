"""Bytes of HTTP/2 (RFC 9113, RFC 7541): frames, codes, and headers that need no compression."""

from __future__ import annotations

import struct
from collections.abc import Iterable

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS = 0, 1, 2, 3, 4
PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 5, 6, 7, 8, 9
END_STREAM, ACK, END_HEADERS, PADDED, PRIORITISED = 1, 1, 4, 8, 32
NO_ERROR, PROTOCOL_ERROR, FLOW_CONTROL_ERROR, FRAME_SIZE_ERROR = 0, 1, 3, 6
REFUSED_STREAM, COMPRESSION_ERROR, ENHANCE_YOUR_CALM = 7, 9, 11
# Settings that either side says.
STREAMS_MAX_IS, INITIAL_WINDOW_IS, FRAME_MAX_IS, LIST_MAX_IS = 3, 4, 5, 6

WINDOW_MAX = 2**31 - 1
WINDOW_FIRST = 65535
FRAME_FIRST = 16384
FRAME_BYTES_MAX = 1 << 20
# What a client may send on a stream before it is granted more.
STREAM_WINDOW = 4 << 20
BLOCK_BYTES_MAX = 1 << 15


class ConnectionFault(Exception):
    """The connection cannot go on. `code`: HTTP/2's."""

    def __init__(self, code: int, reason: str) -> None:
        self.code = code
        super().__init__(reason)


def frame_head(kind: int, flags: int, stream: int, length: int) -> bytes:
    """The nine bytes before `length` bytes of a frame."""
    return struct.pack(">BHBBI", length >> 16, length & 0xFFFF, kind, flags, stream)


def frame(kind: int, flags: int, stream: int, body: bytes) -> bytes:
    """A whole frame."""
    return frame_head(kind, flags, stream, len(body)) + body


def number_frame(kind: int, stream: int, value: int) -> bytes:
    """A frame that holds one number of 32 bits."""
    return frame(kind, 0, stream, struct.pack(">I", value))


def settings_frame(values: Iterable[tuple[int, int]]) -> bytes:
    """SETTINGS."""
    return frame(SETTINGS, 0, 0, b"".join(struct.pack(">HI", *one) for one in values))


def header_block(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Headers as literals that no table has to know (RFC 7541 §6.2.2)."""
    return b"".join(b"\x00" + _text(name) + _text(value) for name, value in headers)


def _text(text: bytes) -> bytes:
    length = len(text)
    if length < 127:
        return bytes((length,)) + text
    rest, more = bytearray(b"\x7f"), length - 127
    while more >= 128:
        rest.append(more & 127 | 128)
        more >>= 7
    rest.append(more)
    return bytes(rest) + text
