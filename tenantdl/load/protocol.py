"""Open Inference Protocol v2 in Triton's dialect: JSON messages and the binary tensor extension.

A message is JSON, then (with the header `Inference-Header-Content-Length: n`, where n is the
length of the JSON) the raw little-endian bytes of those tensors that say `binary_data_size`, in
order. Shared by the server and by the client that issues load.
Reference: https://docs.nvidia.com/deeplearning/triton-inference-server (protocol extensions).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import ml_dtypes  # registers "bfloat16" with NumPy
import msgspec
import numpy as np
from numpy.typing import NDArray

from tenantdl.errors import UserError
from tenantdl.load.strings import parse_strings, to_bytes

Array = NDArray[Any]

HEADER_LENGTH = "inference-header-content-length"
HEADER_BYTES_MAX = 1024**2

# Protocol name → NumPy name. BYTES elements are strings of any length.
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
_DTYPES: dict[str, np.dtype[Any]] = {k: np.dtype(name) for k, name in DATATYPES.items()}
_FROM_DTYPE = {dtype: name for name, dtype in _DTYPES.items()}


def datatype(dtype: str) -> str:
    """The protocol's name of a NumPy dtype name. Raises UserError where it has none."""
    try:
        return _FROM_NUMPY[dtype]
    except KeyError:
        raise UserError(f"the protocol has no datatype for {dtype}") from None


def datatype_of(array: Array) -> str:
    """The same for an array's dtype (whose name takes NumPy long to say). Raises UserError."""
    return _FROM_DTYPE.get(array.dtype) or datatype(array.dtype.name)


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


# (region, offset, size) of an input's parameters → those bytes.
FindMemory = Callable[[Any, Any, Any], memoryview]


def no_memory(region: Any, offset: Any, size: Any) -> memoryview:
    """Where no memory is shared. Raises UserError."""
    raise UserError(f"no shared memory region {region!r} here")


def tensors(
    request: InferRequest, binary: memoryview, find_memory: FindMemory = no_memory
) -> dict[str, Array]:
    """The request's inputs as arrays; binary ones are views of `binary` or of shared memory. Raises
    UserError."""
    arrays: dict[str, Array] = {}
    offset = 0
    for tensor in request.inputs:
        if tensor.name in arrays:
            raise UserError(f"input {tensor.name!r} is given twice")
        asked = tensor.parameters
        if "shared_memory_region" in asked:
            size = asked.get("shared_memory_byte_size")
            offset_in = asked.get("shared_memory_offset", 0)
            raw = find_memory(asked["shared_memory_region"], offset_in, size)
            arrays[tensor.name] = from_bytes(tensor.name, tensor.datatype, tensor.shape, raw)
            continue
        size = asked.get("binary_data_size")
        if size is None:
            arrays[tensor.name] = _from_json(tensor)
            continue
        if not isinstance(size, int) or not 0 <= size <= len(binary) - offset:
            raise UserError(f"input {tensor.name!r}: binary_data_size {size!r} is beyond the body")
        raw = binary[offset : offset + size]
        arrays[tensor.name] = from_bytes(tensor.name, tensor.datatype, tensor.shape, raw)
        offset += size
    if offset != len(binary):
        raise UserError(f"{len(binary) - offset} bytes after the last binary tensor")
    return arrays


def numpy_dtype(name: str, kind: str) -> np.dtype[Any]:
    """The NumPy dtype of input `name` with the protocol's datatype `kind`. Raises UserError."""
    dtype = _DTYPES.get(kind)
    if dtype is None:
        raise UserError(f"input {name!r}: unknown datatype {kind!r}")
    return dtype


def from_bytes(name: str, kind: str, shape: Sequence[int], raw: memoryview) -> Array:
    """Input `name` from its raw bytes, of which it is a view (BYTES are taken apart). Raises
    UserError."""
    dtype = numpy_dtype(name, kind)
    if any(extent < 0 for extent in shape):
        raise UserError(f"input {name!r}: negative extent in shape {list(shape)}")
    count = 1
    for extent in shape:
        count *= extent
    if dtype.kind == "O":
        return parse_strings(name, count, raw).reshape(shape)
    if count * dtype.itemsize != len(raw):
        raise UserError(
            f"input {name!r}: shape {list(shape)} of {kind} is {count * dtype.itemsize} bytes, not "
            f"{len(raw)}"
        )
    return np.frombuffer(raw, dtype).reshape(shape)


def _from_json(tensor: InputTensor) -> Array:
    dtype = numpy_dtype(tensor.name, tensor.datatype)
    if not tensor.data or tensor.data == msgspec.Raw(b"null"):
        raise UserError(f"input {tensor.name!r} has neither data nor binary_data_size")
    try:
        if dtype.kind == "O":
            texts = np.array(_number_decoder.decode(tensor.data), object).ravel()
            encoded = np.empty(len(texts), object)
            encoded[:] = [text.encode() for text in texts]
            return encoded.reshape(tensor.shape)
        values = np.array(_number_decoder.decode(tensor.data))
        # No silent rounding of 1.5 to an integer, nor of 300 to a byte.
        integers = dtype.kind in "iu" and values.dtype.kind in "iu"
        if values.size and not integers and not np.can_cast(values.dtype, dtype, "same_kind"):
            raise ValueError(f"{values.dtype} values for {tensor.datatype}")
        with np.errstate(over="ignore"):  # infinity, as in the client's own arithmetic
            array = values.astype(dtype)
        if integers and not np.array_equal(array, values):
            raise ValueError(f"values out of range for {tensor.datatype}")
        return array.reshape(tensor.shape)
    except (
        *(ValueError, TypeError, OverflowError, AttributeError, MemoryError, RecursionError),
        msgspec.MsgspecError,
    ) as error:
        raise UserError(f"input {tensor.name!r}: {error}") from error


def encode_response(
    response: InferResponse,
    arrays: Mapping[str, Array],
    binary: frozenset[str],
    elsewhere: frozenset[str] = frozenset(),
) -> tuple[list[bytes], int | None]:
    """Fill `response` with `arrays`; the chunks of the body and the length of its JSON (None if no
    output is in `binary`: then it is JSON alone). Outputs that are `elsewhere` (in shared memory)
    have no data."""
    raw: list[bytes] = []
    for name, array in arrays.items():
        tensor = OutputTensor(name, datatype_of(array), list(array.shape))
        if name in elsewhere:
            pass  # not a word: Triton's C++ client takes any parameters for those of binary data
        elif name in binary:
            raw.append(to_bytes(array))
            tensor.parameters = {"binary_data_size": len(raw[-1])}
        elif array.dtype.kind == "O":
            tensor.data = [
                one.decode(errors="replace") if isinstance(one, bytes) else str(one)
                for one in array.ravel()
            ]
        else:
            tensor.data = array.ravel().tolist()
        response.outputs.append(tensor)
    header = _encode(response)
    return [header, *raw], len(header) if raw else None


def encode_request(
    inputs: Mapping[str, Array], parameters: Mapping[str, Any], outputs: Iterable[str] = ()
) -> tuple[bytes, int]:
    """The body of a request with binary inputs and outputs, and the length of its JSON."""
    request = {
        "inputs": [
            {
                "name": name,
                "shape": list(array.shape),
                "datatype": datatype_of(array),
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
        if not isinstance(size, int) or not 0 <= size <= len(binary) - offset:
            raise UserError(f"output {tensor.name!r}: binary_data_size {size!r} is beyond the body")
        raw = binary[offset : offset + size]
        try:
            arrays[tensor.name] = from_bytes(tensor.name, tensor.datatype, tensor.shape, raw)
        except UserError as error:
            raise UserError(error.what.replace("input", "output", 1)) from error
        offset += size
    return arrays


def decode_response(body: bytes, header_length: int | None) -> InferResponse:
    """The JSON of a response. Raises UserError."""
    try:
        return _response_decoder.decode(body[:header_length])
    except msgspec.MsgspecError as error:
        raise UserError(f"response is not valid: {error}") from error
