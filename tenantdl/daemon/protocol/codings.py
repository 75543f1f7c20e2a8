"""Compressed bodies, bounded before memory is taken."""

from __future__ import annotations

import zlib

from tenantdl.daemon.protocol.refusals import ProtocolError

CODINGS = {b"gzip": 16 + zlib.MAX_WBITS, b"deflate": zlib.MAX_WBITS}


def decompressed(body: bytes | memoryview, coding: bytes, limit: int) -> bytes:
    """What `body` was before it was packed. Raises ProtocolError, also beyond `limit` bytes."""
    inflating = zlib.decompressobj(CODINGS[coding])
    try:
        whole = inflating.decompress(body, limit + 1)
    except zlib.error as error:
        raise ProtocolError(400, f"the body is not {coding.decode()}: {error}") from error
    if len(whole) > limit:
        raise ProtocolError(413, f"body of more than {limit} bytes")
    if not inflating.eof:
        raise ProtocolError(400, f"the body is not all of its {coding.decode()}")
    return whole
