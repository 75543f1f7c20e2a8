"""Open Inference Protocol v2 in Triton's dialect: JSON messages and the binary tensor extension.

A message is JSON, then (with the header `Inference-Header-Content-Length: n`, where n is the
length of the JSON) the raw little-endian bytes of those tensors that say `binary_data_size`, in
order. Shared by the server and by the client that issues load.
Reference: https://docs.nvidia.com/deeplearning/triton-inference-server (protocol extensions).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import ml_dtypes  # registers "bfloat16" with NumPy
import msgspec
import numpy as np
from numpy.typing import NDArray

from tenantdl.errors import UserError

Array = NDArray[Any]

HEADER_LENGTH = "inference-header-content-length"
HEADER_BYTES_MAX = 1024**2

# Protocol name → NumPy name. BYTES elements are strings of any length: applications may answer with
# them, no model takes them.
DATATYPES: dict[str, str] = {
    "BOOL": "bool",
    "UINT8": "uint8",
    "UINT16": "uint16",
    "UINT32": "uint32",
    "UINT64": "uint64",
    "INT8": "int8",
    "INT16": "int16",
    "INT32": "int32",
    "INT64": "int64",
    "FP16": "float16",
    "FP32": "float32",
    "FP64": "float64",
    "BF16": np.dtype(ml_dtypes.bfloat16).name,
    "BYTES": "object",
}
_FROM_NUMPY = {numpy_name: name for name, numpy_name in DATATYPES.items()}


def datatype(dtype: str) -> str:
    """The protocol's name of a NumPy dtype name. Raises UserError where it has none."""
    try:
        return _FROM_NUMPY[dtype]
    except KeyError:
        raise UserError(f"the protocol has no datatype for {dtype}") from None


class InputTensor(msgspec.Struct):
    """An input of a request: `data` (flat or nested numbers), or bytes after the JSON."""

    name: str
    shape: list[int]
    datatype: str
    parameters: dict[str, Any] = {}
    data: msgspec.Raw = msgspec.Raw()


class RequestedOutput(msgspec.Struct):
    """An output that the client wants."""

    name: str
    parameters: dict[str, Any] = {}


class InferRequest(msgspec.Struct):
    """The JSON of a request. Unknown members are ignored, as the protocol asks."""

    inputs: list[InputTensor]
    id: str = ""
    outputs: list[RequestedOutput] | None = None
    parameters: dict[str, Any] = {}


class OutputTensor(msgspec.Struct, omit_defaults=True):
    """An output of a response."""

    name: str
    datatype: str
    shape: list[int]
    parameters: dict[str, Any] = {}
    data: list[Any] | None = None


class InferResponse(msgspec.Struct, omit_defaults=True):
    """The JSON of a response."""

    model_name: str
    model_version: str
    outputs: list[OutputTensor]
    id: str = ""


_request_decoder = msgspec.json.Decoder(InferRequest)
_response_decoder = msgspec.json.Decoder(InferResponse)
_number_decoder = msgspec.json.Decoder(list[Any])
_encode = msgspec.json.Encoder().encode


def decode_request(body: memoryview, header_length: int | None) -> tuple[InferRequest, memoryview]:
    """Split a request's body into its JSON and the bytes after it. Raises UserError."""
    length = len(body) if header_length is None else header_length
    if not 0 <= length <= len(body):
        raise UserError(f"JSON of {length} bytes in a body of {len(body)}", where=HEADER_LENGTH)
    try:
        return _request_decoder.decode(body[:length]), body[length:]
    except msgspec.MsgspecError as error:
        raise UserError(f"request is not valid: {error}") from error


def tensors(request: InferRequest, binary: memoryview) -> dict[str, Array]:
    """The request's inputs as arrays; binary ones are views of `binary`. Raises UserError."""
    arrays: dict[str, Array] = {}
    offset = 0
    for tensor in request.inputs:
        if tensor.name in arrays:
            raise UserError(f"input {tensor.name!r} is given twice")
        size = tensor.parameters.get("binary_data_size")
        if size is None:
            arrays[tensor.name] = _from_json(tensor)
            continue
        if not isinstance(size, int) or not 0 <= size <= len(binary) - offset:
            raise UserError(f"input {tensor.name!r}: binary_data_size {size!r} is beyond the body")
        arrays[tensor.name] = _from_bytes(tensor, binary[offset : offset + size])
        offset += size
    if offset != len(binary):
        raise UserError(f"{len(binary) - offset} bytes after the last binary tensor")
    return arrays


def _numpy_dtype(tensor: InputTensor) -> np.dtype[Any]:
    name = DATATYPES.get(tensor.datatype)
    if name is None:
        raise UserError(f"input {tensor.name!r}: unknown datatype {tensor.datatype!r}")
    if name == "object":
        raise UserError(f"input {tensor.name!r}: no model here takes BYTES")
    return np.dtype(name)


def _from_bytes(tensor: InputTensor, raw: memoryview) -> Array:
    dtype = _numpy_dtype(tensor)
    if any(extent < 0 for extent in tensor.shape):
        raise UserError(f"input {tensor.name!r}: negative extent in shape {tensor.shape}")
    needed = dtype.itemsize
    for extent in tensor.shape:
        needed *= extent
    if needed != len(raw):
        raise UserError(
            f"input {tensor.name!r}: shape {tensor.shape} of {tensor.datatype} is {needed} bytes, "
            f"binary_data_size says {len(raw)}"
        )
    return np.frombuffer(raw, dtype).reshape(tensor.shape)


def _from_json(tensor: InputTensor) -> Array:
    dtype = _numpy_dtype(tensor)
    if not tensor.data or tensor.data == msgspec.Raw(b"null"):
        raise UserError(f"input {tensor.name!r} has neither data nor binary_data_size")
    try:
        values = np.array(_number_decoder.decode(tensor.data))
        # No silent rounding of 1.5 to an integer, nor of 300 to a byte.
        integers = dtype.kind in "iu" and values.dtype.kind in "iu"
        if values.size and not integers and not np.can_cast(values.dtype, dtype, "same_kind"):
            raise ValueError(f"{values.dtype} values for {tensor.datatype}")
        array = values.astype(dtype)
        if integers and not np.array_equal(array, values):
            raise ValueError(f"values out of range for {tensor.datatype}")
        return array.reshape(tensor.shape)
    except (ValueError, TypeError, OverflowError, msgspec.MsgspecError) as error:
        raise UserError(f"input {tensor.name!r}: {error}") from error


def encode_response(
    response: InferResponse, arrays: Mapping[str, Array], binary: frozenset[str]
) -> tuple[list[bytes], int | None]:
    """Fill `response` with `arrays`; the chunks of the body and the length of its JSON (None if no
    output is in `binary`: then it is JSON alone)."""
    raw: list[bytes] = []
    for name, array in arrays.items():
        tensor = OutputTensor(name, datatype(array.dtype.name), list(array.shape))
        if name in binary:
            raw.append(_raw(array))
            tensor.parameters = {"binary_data_size": len(raw[-1])}
        else:
            tensor.data = array.ravel().tolist()
        response.outputs.append(tensor)
    header = _encode(response)
    return [header, *raw], len(header) if raw else None


def _raw(array: Array) -> bytes:
    """Little-endian bytes; of text, every element's length in four bytes and then its UTF-8."""
    if array.dtype != object:
        return array.tobytes()
    texts = [str(element).encode() for element in array.ravel()]
    return b"".join(len(text).to_bytes(4, "little") + text for text in texts)


def encode_request(
    inputs: Mapping[str, Array], parameters: Mapping[str, Any], outputs: Iterable[str] = ()
) -> tuple[bytes, int]:
    """The body of a request with binary inputs and outputs, and the length of its JSON."""
    request = {
        "inputs": [
            {
                "name": name,
                "shape": list(array.shape),
                "datatype": datatype(array.dtype.name),
                "parameters": {"binary_data_size": array.nbytes},
            }
            for name, array in inputs.items()
        ],
        "outputs": [{"name": name, "parameters": {"binary_data": True}} for name in outputs],
        "parameters": {"binary_data_output": True, **parameters},
    }
    header = _encode(request)
    return header + b"".join(array.tobytes() for array in inputs.values()), len(header)


def response_arrays(response: InferResponse, binary: memoryview) -> dict[str, Array]:
    """The outputs that came as bytes, as views of `binary`. Raises UserError."""
    arrays: dict[str, Array] = {}
    offset = 0
    for tensor in response.outputs:
        size = tensor.parameters.get("binary_data_size")
        if size is None:
            continue
        dtype = np.dtype(DATATYPES.get(tensor.datatype, "object"))
        try:
            raw = np.frombuffer(binary[offset : offset + size], dtype)
            arrays[tensor.name] = raw.reshape(tensor.shape)
        except (ValueError, TypeError) as error:
            raise UserError(f"output {tensor.name!r}: {error}") from error
        offset += size
    return arrays


def decode_response(body: bytes, header_length: int | None) -> InferResponse:
    """The JSON of a response. Raises UserError."""
    try:
        return _response_decoder.decode(body[:header_length])
    except msgspec.MsgspecError as error:
        raise UserError(f"response is not valid: {error}") from error
