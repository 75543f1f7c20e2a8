"""Operators that become others: constants where shapes say all, functions by ONNX's bodies."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
import onnx

from tenantdl.compile.frontend.attributes import make_node, read_attributes
from tenantdl.compile.frontend.dtypes import dtype_name, type_code, type_proto
from tenantdl.compile.frontend.infer import NEWEST, check_size
from tenantdl.compile.frontend.refusal import Refusal
from tenantdl.compile.frontend.scope import Call, Handler, Reader
from tenantdl.compile.graph import TensorType


@cache
def has_body(op: str) -> bool:
    """Whether ONNX defines the operator by a body of others."""
    schema = onnx.defs.get_schema(op, NEWEST, "")
    return bool(schema.has_function or schema.has_context_dependent_function)


def enter_body(reader: Reader, call: Call) -> list[str]:
    """Reads ONNX's definition of the operator instead of it."""
    b = reader.builder
    schema = onnx.defs.get_schema(call.op, NEWEST, "")
    types = [
        type_proto(b.shape(name), b.dtype(name)) if name else onnx.TypeProto()
        for name in call.inputs
    ]
    if schema.has_context_dependent_function:
        version = max(schema.context_dependent_function_opset_versions)
        names = [f"i{k}" if name else "" for k, name in enumerate(call.inputs)]
        node = make_node(call.op, names, [f"o{k}" for k in range(len(call.outputs))], call.attrs)
        body = schema.get_context_dependent_function_with_opset_version(
            version, node.SerializeToString(), [kind.SerializeToString() for kind in types]
        )
    else:
        body = schema.get_function_with_opset_version(max(schema.function_opset_versions))
    if not body:
        raise Refusal("ONNX gives no definition for these inputs")
    defaults = read_attributes(
        [a.default_value for a in schema.attributes.values() if a.default_value.name],
        {},
        reader.weights,
    )
    call.attrs = defaults | call.attrs
    return reader.inline(onnx.FunctionProto.FromString(body), call)


_CONSTANT_KINDS = {
    "value_float": "float32",
    "value_floats": "float32",
    "value_int": "int64",
    "value_ints": "int64",
}


def _constant(reader: Reader, call: Call) -> list[str]:
    if len(call.attrs) != 1:
        raise Refusal("must have exactly one value")
    key, value = next(iter(call.attrs.items()))
    hint = call.scope.prefix + call.outputs[0]
    if key == "value" and isinstance(value, np.ndarray):
        return [reader.builder.constant(value, hint=hint)]
    if key in _CONSTANT_KINDS:
        return [reader.builder.constant(value, _CONSTANT_KINDS[key], hint)]
    raise Refusal(f"constants of kind '{key}' are not supported")


def _shape(reader: Reader, call: Call) -> list[str]:
    shape = reader.builder.shape(call.inputs[0])
    part = shape[call.attrs.get("start", 0) : call.attrs.get("end", len(shape))]
    return [reader.builder.constant(part, "int64")]


def _size(reader: Reader, call: Call) -> list[str]:
    return [reader.builder.constant(math.prod(reader.builder.shape(call.inputs[0])), "int64")]


def _eye_like(reader: Reader, call: Call) -> list[str]:
    b = reader.builder
    data = call.inputs[0]
    dtype = dtype_name(call.attrs["dtype"]) if "dtype" in call.attrs else b.dtype(data)
    check_size(TensorType(b.shape(data), "float64"))
    rows, columns = b.shape(data)
    return [b.constant(np.eye(rows, columns, call.attrs.get("k", 0), dtype))]


def _cast_like(reader: Reader, call: Call) -> list[str]:
    attrs: dict[str, Any] = {"to": type_code(reader.builder.dtype(call.inputs[1]))}
    attrs |= call.attrs
    return reader.builder.emit("Cast", call.inputs[:1], attrs, call.outputs)


def _range(reader: Reader, call: Call) -> list[str]:
    """Function bodies give its limits as vectors of one element."""
    b = reader.builder
    for index, name in enumerate(call.inputs):
        array = b.const(name)
        if array is not None and array.shape == (1,):
            call.inputs[index] = b.constant(array.reshape(()))
    return []


def _compress(reader: Reader, call: Call) -> list[str]:
    """With a constant condition the places that are taken are known."""
    b = reader.builder
    data, condition = call.inputs[0], b.const(call.inputs[1])
    if condition is None:
        return []
    axis = call.attrs.get("axis")
    if axis is None:
        data, axis = b.op("Reshape", data, b.constant([-1], "int64")), 0
    places = np.flatnonzero(condition)
    if places.size and places[-1] >= b.shape(data)[axis]:
        raise Refusal("its condition is longer than its input")
    return [b.op("Gather", data, b.constant(places, "int64"), axis=axis)]


def _layer_normalization(reader: Reader, call: Call) -> list[str]:
    """Mean and deviation are wanted in training only: then by ONNX's definition."""
    if any(call.wants(index) for index in range(1, len(call.outputs))):
        return enter_body(reader, call)
    return []


def _has_element(reader: Reader, call: Call) -> list[str]:
    return [reader.builder.constant(bool(call.input(0)), "bool")]


def _get_element(reader: Reader, call: Call) -> list[str]:
    return [call.inputs[0]]


HANDLERS: dict[str, Handler] = {
    "CastLike": _cast_like,
    "Compress": _compress,
    "Constant": _constant,
    "EyeLike": _eye_like,
    "LayerNormalization": _layer_normalization,
    "OptionalGetElement": _get_element,
    "OptionalHasElement": _has_element,
    "Range": _range,
    "Shape": _shape,
    "Size": _size,
}
