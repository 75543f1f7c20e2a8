"""ModelInfer: a protobuf message in, one out."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from tritonclient.grpc import service_pb2 as pb

from tenantdl.daemon.catalogue import Served
from tenantdl.daemon.protocol.access import Caller, find_model
from tenantdl.daemon.protocol.grpc_messages import Bytes, infer_answer
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
    request: Any,
    raw: Sequence[Bytes],
    arrived: Ns,
    metadata: Mapping[str, str],
    *,
    final: bool = False,
) -> list[Bytes]:
    """Answer a ModelInferRequest with `raw` inputs: a ModelInferResponse, in pieces, which says
    that it is the last if `final`. Raises ProtocolError, UserError, Refused."""
    catalogue = gate.service.catalogue
    model = find_model(catalogue, caller, request.model_name, request.model_version)
    parameters = values_of(request.parameters)
    inputs = _inputs(gate, caller, request, raw)
    other, trace = metadata.get("x-request-id", ""), metadata.get("traceparent", "")
    origin = make_origin(request.id, other, trace)
    call = make_call(model, caller, inputs, parameters, arrived, origin)
    wanted = _wanted(request, model)
    outputs, timing = await gate.service.infer(call)
    done = time.monotonic_ns()
    placed = place_outputs(gate, caller, outputs, wanted)
    response = pb.ModelInferResponse(
        model_name=model.name, model_version=model.version, id=request.id
    )
    for name, array in placed.arrays.items():
        response.outputs.add(name=name, datatype=datatype_of(array), shape=array.shape)
    if final:
        response.parameters["triton_final_response"].bool_param = True
    arrays = [None if name in placed.elsewhere else a for name, a in placed.arrays.items()]
    pieces = infer_answer(response, arrays)
    timing.compute_output = time.monotonic_ns() - done
    gate.service.statistics.encoded(timing)
    return pieces


def value_of(parameter: Any) -> Any:
    """A parameter's value, whatever its type; None where there is none."""
    kind = parameter.WhichOneof("parameter_choice")
    return None if kind is None else getattr(parameter, kind)


def values_of(parameters: Any) -> dict[str, Any]:
    """The values of a map of parameters by their names. (`items` of such maps is slow.)"""
    return {key: value_of(parameters[key]) for key in parameters} if len(parameters) else {}


def _wanted(request: Any, model: Served) -> list[Wanted]:
    if not request.outputs:
        return all_outputs(model, binary=True)
    wanted = [wanted_output(o.name, values_of(o.parameters), binary=True) for o in request.outputs]
    check_wanted(model, wanted)
    return wanted


def _inputs(gate: Gate, caller: Caller, request: Any, raw: Sequence[Bytes]) -> dict[str, Array]:
    """The inputs by name: in shared memory, raw, or listed. Raises UserError, ProtocolError."""
    used = 0
    arrays: dict[str, Array] = {}
    for tensor in request.inputs:
        if tensor.name in arrays:
            raise UserError(f"input {tensor.name!r} is given twice")
        parameters = values_of(tensor.parameters)
        shape = tuple(tensor.shape)
        if "shared_memory_region" in parameters:
            where = (
                parameters["shared_memory_region"],
                parameters.get("shared_memory_offset", 0),
                parameters.get("shared_memory_byte_size"),
            )
            memory = gate.memory(caller, *where)
            arrays[tensor.name] = from_bytes(tensor.name, tensor.datatype, shape, memory)
        elif raw:
            if used >= len(raw):
                raise ProtocolError(400, f"input '{tensor.name}' is not among the raw contents")
            content = memoryview(raw[used])
            arrays[tensor.name] = from_bytes(tensor.name, tensor.datatype, shape, content)
            used += 1
        else:
            arrays[tensor.name] = _listed(tensor.name, tensor.datatype, shape, tensor.contents)
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
