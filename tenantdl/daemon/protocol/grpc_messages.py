"""ModelInferRequest and -Response without copies of what is large. Raw tensors lie in a protobuf
message as they are (https://protobuf.dev/programming-guides/encoding): they are cut out and put in.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from google.protobuf.message import DecodeError
from tritonclient.grpc import service_pb2 as pb

from tenantdl.daemon.protocol.refusals import ProtocolError
from tenantdl.load.protocol import Array
from tenantdl.load.strings import to_bytes

Bytes = bytes | memoryview
_RAW_INPUT = pb.ModelInferRequest.DESCRIPTOR.fields_by_name["raw_input_contents"].number << 3 | 2
_RAW_OUTPUT = pb.ModelInferResponse.DESCRIPTOR.fields_by_name["raw_output_contents"].number << 3 | 2
_RESPONSE = pb.ModelStreamInferResponse.DESCRIPTOR.fields_by_name["infer_response"].number << 3 | 2
# Below, protobuf's own copies are cheaper than looking.
_LARGE_BYTES = 1 << 14


def parse(kind: Any, message: memoryview) -> Any:
    """A message of type `kind`. Raises ProtocolError."""
    try:
        return kind.FromString(bytes(message))
    except DecodeError as error:
        raise ProtocolError(400, "the message is not one of this call's") from error


def parse_infer(message: memoryview) -> tuple[Any, Sequence[Bytes]]:
    """A ModelInferRequest and its raw inputs, which are views of `message` if that is large. Raises
    ProtocolError."""
    if len(message) > _LARGE_BYTES:
        rest, raw = _split(message)
        if raw:
            return parse(pb.ModelInferRequest, rest), raw
    request = parse(pb.ModelInferRequest, message)
    return request, request.raw_input_contents


def value_of(parameter: Any) -> Any:
    """A parameter's value, whatever its type; None where there is none."""
    kind = parameter.WhichOneof("parameter_choice")
    return None if kind is None else getattr(parameter, kind)


def values_of(parameters: Any) -> dict[str, Any]:
    """The values of a map of parameters by their names. (`items` of such maps is slow.)"""
    return {key: value_of(parameters[key]) for key in parameters} if len(parameters) else {}


def infer_answer(head: bytes, outputs: Sequence[Array | None]) -> list[Bytes]:
    """A ModelInferResponse, `head` and raw `outputs` (None: elsewhere), in pieces."""
    pieces: list[Bytes] = [head]
    for array in outputs:
        raw: Bytes = b"" if array is None else _raw(array)
        pieces += [_key(_RAW_OUTPUT, len(raw)), raw]
    return pieces


def streamed(pieces: Sequence[Bytes]) -> list[Bytes]:
    """A ModelStreamInferResponse around a ModelInferResponse, both in pieces."""
    return [_key(_RESPONSE, sum(map(len, pieces))), *pieces]


def _raw(array: Array) -> Bytes:
    if array.dtype.kind != "O" and array.nbytes > _LARGE_BYTES and array.flags.c_contiguous:
        return array.reshape(-1).view("u1").data
    return to_bytes(array)


def _split(message: memoryview) -> tuple[memoryview, list[memoryview]]:
    """The message without its raw inputs, and these; the whole where it cannot be taken apart."""
    rest, raw, kept = bytearray(), [], 0
    for begin, end in raw_places(message) or ():
        rest += message[kept : begin - len(_key(_RAW_INPUT, end - begin))]
        raw.append(message[begin:end])
        kept = end
    rest += message[kept:]
    return memoryview(rest), raw


def raw_places(message: memoryview) -> list[tuple[int, int]] | None:
    """Where the raw inputs of a ModelInferRequest begin and end; None where it cannot be taken
    apart."""
    places, at = [], 0
    while at < len(message):
        begin = at
        tag, at = _varint(message, at)
        if tag & 7 != 2:  # not of a length that is said: every field of this message has one
            return None
        size, at = _varint(message, at)
        if at + size > len(message):
            return None
        if tag == _RAW_INPUT:
            if at - begin != len(_key(_RAW_INPUT, size)):
                return None  # said at length
            places.append((at, at + size))
        at += size
    return places


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """A number and where the next one is; a length that is too much where it does not end."""
    value = shift = 0
    while at < len(message) and shift < 35:
        byte = message[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at
    return len(message) << 3 | 2, at


def _key(tag: int, size: int) -> bytes:
    """What stands before a field of `size` bytes."""
    key = bytearray((tag,))
    while size > 127:
        key.append(size & 127 | 128)
        size >>= 7
    key.append(size)
    return bytes(key)
