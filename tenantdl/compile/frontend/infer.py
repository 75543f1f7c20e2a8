"""Static types of one node's outputs: ONNX's own shape inference, with the constants it needs.

ONNX checks arity, attributes and element types on the way; what it does not check is checked here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper, shape_inference

from tenantdl.compile.frontend.attributes import make_node
from tenantdl.compile.frontend.dtypes import dtype_name, type_proto
from tenantdl.compile.frontend.refusal import DATA_ELEMENTS_MAX, VALUE_BYTES_MAX, Refusal
from tenantdl.compile.graph import Array, TensorType

NEWEST = onnx.defs.onnx_opset_version()
_TERM = r"\s*([A-Za-z]\s*)*(\.\.\.\s*)?([A-Za-z]\s*)*"
_EQUATION = re.compile(rf"{_TERM}(,{_TERM})*(->{_TERM})?")
# Without inference in ONNX; the result is of the input's type.
_LIKE_INPUT = frozenset({"GroupNormalization", "MeanVarianceNormalization"})
_OPSETS = [helper.make_opsetid("", NEWEST)]


def infer_types(
    op: str,
    inputs: Sequence[str],
    attrs: Mapping[str, Any],
    n_outputs: int,
    types: Mapping[str, TensorType],
    constants: Mapping[str, Array],
) -> list[TensorType | None]:
    """Types of the outputs; None where the shape depends on data that are not constant.

    Raises Refusal where the node is ill-formed or a tensor is too large.
    """
    _guard(op, inputs, attrs, n_outputs, constants)
    node = make_node(op, list(inputs), [f"output {i}" for i in range(n_outputs)], attrs)
    protos = {name: type_proto(types[name].shape, types[name].dtype) for name in inputs if name}
    data = {
        name: numpy_helper.from_array(np.asarray(constants[name], order="C"))
        for name in inputs
        if name in constants and constants[name].size <= DATA_ELEMENTS_MAX
    }
    try:
        schema = onnx.defs.get_schema(op, NEWEST, "")
        found = shape_inference.infer_node_outputs(
            schema, node, protos, data, opset_imports=_OPSETS
        )
    except (shape_inference.InferenceError, onnx.checker.ValidationError) as error:
        raise Refusal(_first_line(str(error))) from error
    known = [types[name] if name else None for name in inputs]
    if op in _LIKE_INPUT:
        return [known[0]]
    _check(op, known, attrs)
    result = [_static(found.get(name)) for name in node.output]
    if op == "Reshape" and result[0] is not None and known[0] is not None:
        _same_size(known[0], result[0])
    return result


def _guard(
    op: str,
    inputs: Sequence[str],
    attrs: Mapping[str, Any],
    n_outputs: int,
    constants: Mapping[str, Array],
) -> None:
    """Refuses what ONNX's inference would hang or abort the process on."""
    if op == "Einsum" and not _EQUATION.fullmatch(str(attrs.get("equation", ""))):
        raise Refusal("its equation is ill-formed")
    if op == "Split":
        parts = constants.get(inputs[1]) if len(inputs) > 1 else None
        count = parts.size if parts is not None else attrs.get("num_outputs", n_outputs)
        if count != n_outputs:
            raise Refusal(f"splits into {count} parts for {n_outputs} outputs")


def check_size(kind: TensorType) -> TensorType:
    """The same type. Raises Refusal where one tensor of it would take too much memory."""
    # Dimensions of 0 do not excuse the others: strides are computed from them.
    size = math.prod(max(extent, 1) for extent in kind.shape) * np.dtype(kind.dtype).itemsize
    if size > VALUE_BYTES_MAX:
        raise Refusal(f"a tensor {kind.dtype}{list(kind.shape)} of {size} bytes is too large")
    return kind


def _static(proto: onnx.TypeProto | None) -> TensorType | None:
    """The static type, or None where a dimension is not known."""
    if proto is None or not proto.HasField("tensor_type"):
        if proto is not None and proto.WhichOneof("value") is not None:
            raise Refusal(f"values of kind {proto.WhichOneof('value')} are not supported")
        return None
    tensor = proto.tensor_type
    dims = tensor.shape.dim
    if not tensor.HasField("shape") or not all(dim.HasField("dim_value") for dim in dims):
        return None
    shape = tuple(dim.dim_value for dim in dims)
    if any(extent < 0 for extent in shape):
        raise Refusal(f"its output would have the shape {list(shape)}")
    return check_size(TensorType(shape, dtype_name(tensor.elem_type)))


def _same_size(before: TensorType, after: TensorType) -> None:
    if math.prod(before.shape) != math.prod(after.shape):
        raise Refusal(f"cannot reshape {list(before.shape)} to {list(after.shape)}")


def _check(op: str, inputs: list[TensorType | None], attrs: Mapping[str, Any]) -> None:
    """Rules between the inputs that ONNX's inference leaves to the runtime."""
    shapes = [kind.shape if kind else () for kind in inputs]
    if op in ("Conv", "ConvTranspose", "ConvInteger"):
        _check_conv(op, shapes, attrs)
    elif op == "BatchNormalization":
        channels = shapes[0][1] if len(shapes[0]) > 1 else 1
        if any(shape != (channels,) for shape in shapes[1:]):
            raise Refusal(f"its parameters must have the shape [{channels}]")


def _check_conv(op: str, shapes: list[tuple[int, ...]], attrs: Mapping[str, Any]) -> None:
    data, kernel, group = shapes[0], shapes[1], attrs.get("group", 1)
    if len(data) < 3 or len(kernel) != len(data):
        raise Refusal(f"data {list(data)} and kernel {list(kernel)} do not go together")
    transposed = op == "ConvTranspose"
    channels = kernel[0] if transposed else kernel[1] * group
    if group < 1 or data[1] != channels or kernel[0] % group:
        raise Refusal(f"{data[1]} channels in {group} groups do not fit the kernel {list(kernel)}")
    if tuple(attrs.get("kernel_shape", kernel[2:])) != kernel[2:]:
        raise Refusal(f"kernel_shape {attrs['kernel_shape']} is not that of {list(kernel)}")
    outputs = kernel[1] * group if transposed else kernel[0]
    if op != "ConvInteger" and len(shapes) > 2 and shapes[2] and shapes[2] != (outputs,):
        raise Refusal(f"its bias must have the shape [{outputs}]")


def _first_line(text: str) -> str:
    """ONNX's messages without their brackets and the dump of the node."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    line = lines[0] if lines else "ill-formed"
    return line.removeprefix("[ShapeInferenceError]").removeprefix("[TypeInferenceError]").strip()
