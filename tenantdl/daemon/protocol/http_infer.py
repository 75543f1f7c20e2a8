"""POST …/infer without layers above the connection: a body goes into one buffer of the announced
size, an answer out in one write.

Bodies are bounded before memory is taken: by what the model's inputs can need (413), and by the
bytes of all requests being read at once (429).
"""

from __future__ import annotations

import logging
import re
import time
from typing import Any
from urllib.parse import unquote

import msgspec
import numpy as np

from tenantdl.daemon.catalogue import Served
from tenantdl.daemon.protocol.access import Caller, find_model
from tenantdl.daemon.protocol.codings import CODINGS, decompressed
from tenantdl.daemon.protocol.inference import (
    Gate,
    Wanted,
    all_outputs,
    check_wanted,
    make_call,
    make_origin,
    place_outputs,
    wanted_output,
)
from tenantdl.daemon.protocol.refusals import ProtocolError, as_protocol_error
from tenantdl.errors import UserError
from tenantdl.load import protocol
from tenantdl.load.protocol import HEADER_BYTES_MAX, HEADER_LENGTH, InferRequest, InferResponse
from tenantdl.units import Ns

_log = logging.getLogger(__name__)
# What is read and thrown away of a request that is refused, so that the connection lives.
_SPARE_BYTES = 64 * 1024


class HttpInference:
    """One request as it arrives, and its answer."""

    def __init__(
        self, gate: Gate, path: re.Match[bytes], headers: list[tuple[bytes, bytes]]
    ) -> None:
        self.arrived = Ns(time.monotonic_ns())
        self.size = 0
        self.error: ProtocolError | None = None
        self.response_encoding = b""
        self._gate = gate
        self._headers = dict(headers)
        length = self._headers.get(b"content-length")
        # Bytes of the body as far as the head says, and whether it does.
        self.declared, self.sized = int(length or 0), length is not None
        self._reserved = 0
        self._body: Any = bytearray()
        try:
            self._open(path)
        except Exception as error:
            self.error = as_protocol_error(error)
            if self.error is None:
                raise

    def _open(self, path: re.Match[bytes]) -> None:
        """Who asks for what, and how long it may be. Raises ProtocolError."""
        headers, gate = self._headers, self._gate
        token = headers.get(b"authorization")
        name, self.version = (unquote((part or b"").decode("latin-1")) for part in path.groups())
        self.caller = gate.access.caller(None if token is None else token.decode("latin-1"))
        self.model = find_model(gate.service.catalogue, self.caller, name, self.version)
        self.coding = headers.get(b"content-encoding", b"identity").lower()
        if self.coding not in (b"identity", *CODINGS):
            raise ProtocolError(415, "the coding of the request is neither gzip nor deflate")
        accepted = headers.get(b"accept-encoding", b"").lower()
        self.response_encoding = accepted if accepted in CODINGS else b""
        self.header_length = _header_length(headers.get(HEADER_LENGTH.encode()))
        limit = self.model.body_bytes_max(binary=self.header_length is not None)
        reserved = self.declared if self.sized else limit
        if reserved > limit:
            message = f"body of {reserved} bytes; model {self.model.name} takes {limit}"
            raise ProtocolError(413, message)
        if reserved > gate.bytes_left:
            raise ProtocolError(429, "too many bytes of requests are being read")
        gate.bytes_left -= reserved
        self.limit, self._reserved = limit, reserved
        if self.sized:
            self._body = memoryview(np.empty(reserved, np.uint8))

    @property
    def hopeless(self) -> bool:
        """Whether the request is refused and has more to come than is worth reading."""
        return self.error is not None and self.declared > _SPARE_BYTES

    def room(self) -> memoryview | None:
        """Where the rest of the body may be written at once; None for what is not to be kept."""
        return None if self.error is not None or not self.sized else self._body[self.size :]

    def filled(self, count: int) -> None:
        """So much was written there."""
        self.size += count

    def feed(self, data: bytes | memoryview) -> bool:
        """More of the body; False when the client has sent too much to go on with."""
        begin, self.size = self.size, self.size + len(data)
        if self.error is None:
            if self.size > self.limit:
                self.error = ProtocolError(413, f"body of more than {self.limit} bytes")
                self.release()
            elif self.size > len(self._body):
                self._body += data
            else:
                self._body[begin : self.size] = data
        return self.error is None or self.size <= _SPARE_BYTES

    def release(self) -> None:
        """The body is not needed any more. Idempotent."""
        self._gate.bytes_left += self._reserved
        self._reserved = 0
        self._body = bytearray()

    async def answer(self) -> tuple[int, list[bytes], int | None]:
        """Status, chunks of the body, and the length of its JSON if bytes follow it."""
        try:
            if self.error is not None:
                raise self.error
            # A body takes its time: the model may have been replaced meanwhile.
            catalogue, version = self._gate.service.catalogue, self.version
            model = find_model(catalogue, self.caller, self.model.name, version)
            chunks, length = await self._infer(self.caller, model)
            return 200, chunks, length
        except Exception as error:
            known = as_protocol_error(error)
            if known is None:
                _log.exception("a request has found a bug")
                known = ProtocolError(500, f"internal error: {type(error).__name__}")
            return known.status, [msgspec.json.encode({"error": known.message})], None
        finally:
            self.release()

    async def _infer(self, caller: Caller, model: Served) -> tuple[list[bytes], int | None]:
        gate = self._gate
        body = memoryview(self._body)
        if self.coding != b"identity":
            body = memoryview(decompressed(body, self.coding, self.limit))
        message, binary = protocol.decode_request(body, self.header_length)
        inputs = protocol.tensors(message, binary, lambda *where: gate.memory(caller, *where))
        other, trace = (
            self._headers.get(name, b"").decode("latin-1")
            for name in (b"x-request-id", b"traceparent")
        )
        origin = make_origin(message.id, other, trace)
        call = make_call(model, caller, inputs, message.parameters, self.arrived, origin)
        wanted = _wanted(message, model)
        check_wanted(model, wanted)
        outputs, timing = await gate.service.infer(call)
        done = time.monotonic_ns()
        placed = place_outputs(gate, caller, outputs, wanted)
        response = InferResponse(model.name, model.version, [], id=message.id)
        encoded = protocol.encode_response(response, placed.arrays, placed.binary, placed.elsewhere)
        timing.compute_output = time.monotonic_ns() - done
        gate.service.statistics.encoded(timing)
        return encoded


def _wanted(message: InferRequest, model: Served) -> list[Wanted]:
    everywhere = bool(message.parameters.get("binary_data_output", False))
    if not message.outputs:
        return all_outputs(model, binary=everywhere)
    return [wanted_output(o.name, o.parameters, binary=everywhere) for o in message.outputs]


def _header_length(text: bytes | None) -> int | None:
    """The length of a message's JSON from its header `text`; None where there is none."""
    if text is None:
        return None
    if not text.isdigit() or len(text) > 12 or int(text) > HEADER_BYTES_MAX:
        raise UserError(f"{text[:40].decode('latin-1')!r} is not a length", where=HEADER_LENGTH)
    return int(text)
