"""The wire format: against itself, and what is wrong with a request."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tenantdl.errors import UserError
from tenantdl.load.protocol import (
    DATATYPES,
    InferResponse,
    datatype,
    decode_request,
    decode_response,
    encode_request,
    encode_response,
    tensors,
)

NUMERIC = sorted(set(DATATYPES) - {"BYTES"})


@pytest.mark.parametrize("name", NUMERIC)
def test_binary_tensors_of_every_datatype_come_through(name: str) -> None:
    array = np.arange(6).reshape(2, 3).astype(DATATYPES[name])
    body, length = encode_request({"x": array}, {"tenant": "a"}, ["y"])
    request, binary = decode_request(memoryview(body), length)
    assert request.inputs[0].datatype == name == datatype(array.dtype.name)
    assert request.parameters == {"binary_data_output": True, "tenant": "a"}
    got = tensors(request, binary)["x"]
    assert got.dtype == array.dtype
    assert np.array_equal(got, array)


@pytest.mark.parametrize("name", NUMERIC)
def test_json_tensors_flat_or_nested(name: str) -> None:
    values = [[False, True]] if name == "BOOL" else [[0, 1]]
    for data in (values, values[0]):
        body = {"inputs": [{"name": "x", "shape": [1, 2], "datatype": name, "data": data}]}
        request, binary = decode_request(memoryview(json.dumps(body).encode()), None)
        got = tensors(request, binary)["x"]
        assert got.shape == (1, 2) and got.dtype.name == DATATYPES[name]
        assert got.astype("int64").tolist() == [[0, 1]]


def test_responses_mix_json_and_binary() -> None:
    arrays = {"a": np.ones((1, 2), "float32"), "b": np.array([3], "int64")}
    response = InferResponse("m", "1", [], id="7")
    chunks, length = encode_response(response, arrays, frozenset({"b"}))
    assert length == len(chunks[0])
    decoded = decode_response(b"".join(chunks), length)
    assert [(o.name, o.datatype, o.shape, o.data) for o in decoded.outputs] == [
        ("a", "FP32", [1, 2], [1.0, 1.0]),
        ("b", "INT64", [1], None),
    ]
    assert chunks[1] == np.array([3], "<i8").tobytes()


def tensor(**changes: object) -> dict[str, object]:
    return {"name": "x", "shape": [2], "datatype": "INT8", "data": [1, 2], **changes}


def sized(size: object, **changes: object) -> dict[str, object]:
    return tensor(data=None, parameters={"binary_data_size": size}, **changes)


@pytest.mark.parametrize(
    ("inputs", "extra", "message"),
    [
        ([tensor(datatype="INT9")], b"", "'x': unknown datatype 'INT9'"),
        ([tensor(datatype="BYTES", data=[1, 2])], b"", "'x'"),
        ([sized(5, datatype="BYTES", shape=[2])], b"\1\0\0\0a", "2 BYTES elements in 5 bytes"),
        ([sized(5, datatype="BYTES", shape=[1])], b"\2\0\0\0a", "goes beyond the data"),
        ([sized(6, datatype="BYTES", shape=[1])], b"\1\0\0\0aa", "1 bytes after its last"),
        ([tensor(data=[1, 300])], b"", "out of range for INT8"),
        ([tensor(data=[1.5, 2])], b"", "float64 values for INT8"),
        ([tensor(data=["a", "b"])], b"", "'x'"),
        ([tensor(data=[1, 2, 3])], b"", "cannot reshape"),
        ([tensor(data=[[1], [2, 3]])], b"", "'x'"),
        ([tensor(data=None)], b"", "neither data nor binary_data_size"),
        ([tensor(), tensor()], b"", "'x' is given twice"),
        ([tensor()], b"12", "2 bytes after the last binary tensor"),
        ([sized(3)], b"12", "is beyond the body"),
        ([sized(-1)], b"12", "is beyond the body"),
        ([sized("2")], b"12", "is beyond the body"),
        ([sized(1)], b"1", "is 2 bytes, not 1"),
        ([sized(2, shape=[-2, -1])], b"12", "negative extent"),
    ],
)
def test_bad_tensors_are_named(inputs: list[object], extra: bytes, message: str) -> None:
    header = json.dumps({"inputs": inputs}).encode()
    with pytest.raises(UserError, match=message):
        tensors(*decode_request(memoryview(header + extra), len(header)))


@pytest.mark.parametrize(
    ("body", "length", "message"),
    [
        (b"{}", None, "inputs"),
        (b"nonsense", None, "not valid"),
        (b'{"inputs": []}', 99, "JSON of 99 bytes in a body of 14"),
        (b'{"inputs": []}', -1, "JSON of -1 bytes"),
        (b'{"inputs": [{"name": "x"}]}', None, "shape"),
    ],
)
def test_bad_messages_are_refused(body: bytes, length: int | None, message: str) -> None:
    with pytest.raises(UserError, match=message):
        decode_request(memoryview(body), length)


def test_a_dtype_without_a_name_is_refused() -> None:
    with pytest.raises(UserError, match="complex64"):
        datatype("complex64")
