"""POST …/infer without layers above the connection: a body goes into one buffer of the announced
size, an answer out in one write.

Bodies are bounded before memory is taken: by what the model's inputs can need (413), and by the
bytes of all requests being read at once (429).
"""

from __future__ import annotations

import logging
import re
import time
from typing import Any, NamedTuple
from urllib.parse import unquote

import msgspec
import numpy as np

from tenantdl.daemon.catalogue import Served
from tenantdl.daemon.door import LARGE_BYTES
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
from tenantdl.daemon.protocol.refusals import SAID, STATUS, ProtocolError, as_protocol_error
from tenantdl.daemon.statistics import Timing
from tenantdl.errors import UserError
from tenantdl.ids import TenantId
from tenantdl.load import protocol
from tenantdl.load.protocol import HEADER_BYTES_MAX, HEADER_LENGTH, InferRequest, InferResponse
from tenantdl.sched.messages import Reason
from tenantdl.units import Ns

_log = logging.getLogger(__name__)
# What is read and thrown away of a request that is refused, so that the connection lives.
_SPARE_BYTES = 64 * 1024


class Head(NamedTuple):
    """What the head of a request says. `length`: of the body, None where it is not said;
    `header_length`: of its JSON, if bytes follow. `error`: what is wrong with it."""

    name: str
    version: str
    token: str | None
    length: int | None
    header_length: int | None
    coding: bytes
    response_coding: bytes
    number: str
    trace: str
    error: ProtocolError | None


def read_head(path: re.Match[bytes], headers: list[tuple[bytes, bytes]]) -> Head:
    """The head of a request for the model in `path`."""
    given = {name: value.decode("latin-1") for name, value in headers}
    name, version = (unquote((part or b"").decode("latin-1")) for part in path.groups())
    coding = given.get(b"content-encoding", "identity").lower().encode("latin-1")
    accepted = given.get(b"accept-encoding", "").lower().encode("latin-1")
    length, header_length, error = given.get(b"content-length"), None, None
    try:
        header_length = _header_length(given.get(HEADER_LENGTH.encode()))
        if coding not in (b"identity", *CODINGS):
            raise ProtocolError(415, "the coding of the request is neither gzip nor deflate")
    except (UserError, ProtocolError) as refusal:
        error = as_protocol_error(refusal)
    return Head(
        *(name, version, given.get(b"authorization")),
        *(None if length is None else int(length), header_length, coding),
        accepted if accepted in CODINGS else b"",
        *(given.get(b"x-request-id", ""), given.get(b"traceparent", ""), error),
    )


class HttpInference:
    """One request as it arrives, and its answer."""

    def __init__(self, gate: Gate, head: Head) -> None:
        self.arrived = Ns(time.monotonic_ns())
        self.size = 0
        self.head = head
        self.error: ProtocolError | None = None
        self.response_coding = b""
        self._gate = gate
        # Bytes of the body as far as the head says.
        self.declared = head.length or 0
        self._reserved = 0
        # Whose body is counted as being read.
        self._counted: TenantId | None = None
        # Whether the body is read only to be thrown away, so that the connection lives.
        self.ignored = False
        self._body: Any = bytearray()
        try:
            self._open(head)
        except Exception as error:
            self.error = as_protocol_error(error)
            if self.error is None:
                raise

    def _open(self, head: Head) -> None:
        """Who asks for what, and how long it may be. Raises ProtocolError."""
        gate = self._gate
        self.caller = gate.access.caller(head.token)
        self.model = find_model(gate.service.catalogue, self.caller, head.name, head.version)
        if head.error is not None:
            raise head.error
        self.response_coding = head.response_coding
        limit = self.model.body_bytes_max(binary=head.header_length is not None)
        reserved = limit if head.length is None else head.length
        if reserved > limit:
            message = f"body of {reserved} bytes; model {self.model.name} takes {limit}"
            raise ProtocolError(413, message)
        if reserved > gate.bytes_left:
            raise ProtocolError(429, "too many bytes of requests are being read")
        if reserved > LARGE_BYTES:
            self._enter()
        gate.bytes_left -= reserved
        gate.service.stir()
        self.limit, self._reserved = limit, reserved
        if head.length is not None:
            self._body = np.empty(reserved, np.uint8).data

    def _enter(self) -> None:
        """Raises ProtocolError where there is no time for one more."""
        service, tenant = self._gate.service, self.caller.tenant_for(self.model)
        if service.door.enter(tenant, self.model.id):
            self._counted = tenant
            return
        reason = Reason.DEADLINE_INFEASIBLE
        service.statistics.refused(Timing(tenant, self.model.id), reason.value, self.arrived)
        self.ignored = self.declared > 0
        raise ProtocolError(STATUS[reason], SAID[reason])

    @property
    def hopeless(self) -> bool:
        """Whether the request is refused and has more to come than is worth reading."""
        return self.error is not None and self.declared > _SPARE_BYTES and not self.ignored

    def room(self) -> memoryview | None:
        """Where the rest of the body may be written at once; None for what is not to be kept."""
        if self.error is not None or self.head.length is None:
            return None
        return memoryview(self._body)[self.size :]

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
        return self.error is None or self.ignored or self.size <= _SPARE_BYTES

    def arrived_whole(self) -> None:
        """Nothing more of it is to come. Idempotent."""
        if self._counted is not None:
            self._gate.service.door.leave(self._counted, self.model.id)
            self._counted = None

    def release(self) -> None:
        """The body is not needed any more. Idempotent."""
        self.arrived_whole()
        self._gate.bytes_left += self._reserved
        self._reserved = 0
        self._body = bytearray()

    async def answer(self) -> tuple[int, list[bytes], int | None]:
        """Status, chunks of the body, and the length of its JSON if bytes follow it."""
        try:
            if self.error is not None:
                raise self.error
            # A body takes its time: the model may have been replaced meanwhile.
            catalogue, head, model = self._gate.service.catalogue, self.head, self.model
            if catalogue.models.get(model.id) is not model:
                model = find_model(catalogue, self.caller, head.name, head.version)
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
        gate, head = self._gate, self.head
        body = memoryview(self._body)
        if head.coding != b"identity":
            body = memoryview(decompressed(body, head.coding, self.limit))
        message, binary = protocol.decode_request(body, head.header_length)
        inputs = protocol.tensors(message, binary, lambda *where: gate.memory(caller, *where))
        origin = make_origin(message.id, head.number, head.trace)
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


def _header_length(text: str | None) -> int | None:
    """The length of a message's JSON from its header `text`; None where there is none."""
    if text is None:
        return None
    digits = text.isascii() and text.isdigit()
    if not digits or len(text) > 12 or int(text) > HEADER_BYTES_MAX:
        raise UserError(f"{text[:40]!r} is not a length", where=HEADER_LENGTH)
    return int(text)
