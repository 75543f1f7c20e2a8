"""ModelInfer: a protobuf message in, one out."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from tritonclient.grpc import service_pb2 as pb

from tenantdl.daemon.catalogue import Served
from tenantdl.daemon.protocol.access import Caller, find_model
from tenantdl.daemon.protocol.grpc_asked import Asked
from tenantdl.daemon.protocol.grpc_messages import Bytes, infer_answer
from tenantdl.daemon.protocol.inference import (
    Gate,
    all_outputs,
    check_wanted,
    make_call,
    make_origin,
    place_outputs,
)
from tenantdl.daemon.protocol.refusals import ProtocolError
from tenantdl.errors import UserError
from tenantdl.load.protocol import Array, datatype_of, from_bytes, numpy_dtype
from tenantdl.units import Ns

# Where `contents` holds the elements of a datatype. FP16 and BF16 have no place there.
_CONTENTS = {
    "BOOL": "bool_contents",
    **dict.fromkeys(("INT8", "INT16", "INT32"), "int_contents"),
    "INT64": "int64_contents",
    **dict.fromkeys(("UINT8", "UINT16", "UINT32"), "uint_contents"),
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}


async def infer(
    gate: Gate,
    caller: Caller,
    asked: Asked,
    raw: Sequence[Bytes],
    arrived: Ns,
    metadata: Mapping[str, str],
    *,
    final: bool = False,
) -> list[Bytes]:
    """Answer a request with `raw` inputs: a ModelInferResponse, in pieces, which says that it is
    the last if `final`. Raises ProtocolError, UserError, Refused."""
    model = find_model(gate.service.catalogue, caller, asked.model, asked.version)
    inputs = _inputs(gate, caller, asked, raw)
    other, trace = metadata.get("x-request-id", ""), metadata.get("traceparent", "")
    origin = make_origin(asked.number, other, trace)
    call = make_call(model, caller, inputs, asked.parameters, arrived, origin)
    if asked.wrong:
        raise UserError(asked.wrong)
    wanted = asked.outputs or all_outputs(model, binary=True)
    check_wanted(model, wanted)
    outputs, timing = await gate.service.infer(call)
    done = time.monotonic_ns()
    placed = place_outputs(gate, caller, outputs, wanted)
    head = _head(asked, model, placed.arrays, final=final)
    arrays = [None if name in placed.elsewhere else a for name, a in placed.arrays.items()]
    pieces = infer_answer(head, arrays)
    timing.compute_output = time.monotonic_ns() - done
    gate.service.statistics.encoded(timing)
    return pieces


def _head(asked: Asked, model: Served, arrays: Mapping[str, Array], *, final: bool) -> bytes:
    """An answer without its raw outputs."""
    forms = tuple((name, array.dtype, array.shape) for name, array in arrays.items())
    key = (model.id, final, forms)
    if key not in asked.heads:
        response = pb.ModelInferResponse(
            model_name=model.name, model_version=model.version, id=asked.number
        )
        for name, array in arrays.items():
            response.outputs.add(name=name, datatype=datatype_of(array), shape=array.shape)
        if final:
            response.parameters["triton_final_response"].bool_param = True
        asked.keep(key, response.SerializeToString())
    return asked.heads[key]


def _inputs(gate: Gate, caller: Caller, asked: Asked, raw: Sequence[Bytes]) -> dict[str, Array]:
    """The inputs by name: in shared memory, raw, or listed. Raises UserError, ProtocolError."""
    used = 0
    arrays: dict[str, Array] = {}
    for name, kind, shape, where, contents in asked.inputs:
        if name in arrays:
            raise UserError(f"input {name!r} is given twice")
        if where is not None:
            arrays[name] = from_bytes(name, kind, shape, gate.memory(caller, *where))
        elif raw:
            if used >= len(raw):
                raise ProtocolError(400, f"input '{name}' is not among the raw contents")
            arrays[name] = from_bytes(name, kind, shape, memoryview(raw[used]))
            used += 1
        else:
            arrays[name] = _listed(name, kind, shape, contents)
    if used < len(raw):
        raise ProtocolError(400, f"{len(raw) - used} raw contents belong to no input")
    return arrays


def _listed(name: str, kind: str, shape: tuple[int, ...], contents: Any) -> Array:
    dtype = numpy_dtype(name, kind)
    field = _CONTENTS.get(kind)
    if field is None:
        raise UserError(f"input {name!r}: {kind} has to be sent as raw contents")
    values = getattr(contents, field)
    try:
        array = np.empty(len(values), object) if dtype.kind == "O" else np.array(values)
        if dtype.kind == "O":
            array[:] = list(values)
        elif len(values) and not np.array_equal(array.astype(dtype), array):
            raise ValueError(f"values out of range for {kind}")
        return array.astype(dtype).reshape(shape)
    except (ValueError, OverflowError) as error:
        raise UserError(f"input {name!r}: {error}") from error
