"""Reads an ONNX file and its weights: every size is checked against the bytes that are really
there before memory is taken, and external data stays inside the model's folder.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto, numpy_helper

from tenantdl.compile.frontend.dtypes import dtype_name
from tenantdl.compile.frontend.refusal import (
    PROTOBUF_BYTES_MAX,
    WEIGHT_BYTES_MAX,
    Refusal,
)
from tenantdl.compile.graph import Array
from tenantdl.errors import UserError

_IR_VERSION_MIN = 3


@dataclass(slots=True)
class Weights:
    """Decodes tensors. `folder` is where external data may lie (None: nowhere); `budget_bytes` is
    how much of it may still be read."""

    folder: Path | None
    budget_bytes: int = WEIGHT_BYTES_MAX

    def read(self, tensor: TensorProto) -> Array:
        """The tensor as an array. Raises Refusal where data and declared shape disagree."""
        dtype = np.dtype(dtype_name(tensor.data_type))
        shape = tuple(tensor.dims)
        if any(extent < 0 for extent in shape):
            raise Refusal(f"tensor '{tensor.name}' has a negative dimension: {list(shape)}")
        if tensor.HasField("segment"):
            raise Refusal(f"tensor '{tensor.name}' is stored in segments")
        if tensor.data_location == TensorProto.EXTERNAL:
            return self._external(tensor, shape, dtype)
        try:
            array = numpy_helper.to_array(tensor)
        except (ValueError, TypeError, OverflowError) as error:
            raise Refusal(
                f"tensor '{tensor.name}' declares {dtype}{list(shape)}, its data disagree: {error}"
            ) from error
        if array.shape != shape:
            raise Refusal(f"tensor '{tensor.name}' declares {list(shape)}, has {list(array.shape)}")
        return np.asarray(array)

    def _external(self, tensor: TensorProto, shape: tuple[int, ...], dtype: np.dtype) -> Array:
        entries = {entry.key: entry.value for entry in tensor.external_data}
        path = self._locate(tensor.name, entries.get("location", ""))
        try:
            offset = int(entries.get("offset", 0))
            length = int(entries.get("length", path.stat().st_size - offset))
        except (ValueError, OSError) as error:
            raise Refusal(f"external data of tensor '{tensor.name}': {error}") from error
        needed = math.prod(shape) * dtype.itemsize
        if dtype.name in ("int4", "uint4", "int2", "uint2", "float4_e2m1fn"):
            raise Refusal(f"tensor '{tensor.name}': {dtype} in external data is not supported")
        if length != needed:
            raise Refusal(
                f"tensor '{tensor.name}' needs {needed} bytes of external data, not {length}"
            )
        if offset < 0 or offset + length > path.stat().st_size:
            raise Refusal(f"external data of tensor '{tensor.name}' ends behind its file")
        if length > self.budget_bytes:
            raise Refusal(f"external data exceed {WEIGHT_BYTES_MAX} bytes")
        self.budget_bytes -= length
        data = np.fromfile(path, dtype=dtype, count=math.prod(shape), offset=offset)
        return data.reshape(shape)

    def _locate(self, name: str, location: str) -> Path:
        """The file of a tensor's external data, links resolved, inside the model's folder."""
        if self.folder is None or not location or "\0" in location:
            raise Refusal(f"tensor '{name}' has external data in '{location}', which is nowhere")
        root = self.folder.resolve()
        path = (root / location).resolve()
        if not path.is_relative_to(root):
            raise Refusal(f"external data of tensor '{name}' leave the model's folder: {location}")
        if not path.is_file():
            raise Refusal(f"external data of tensor '{name}' are missing: {location}")
        return path


def read_model(source: str | Path | onnx.ModelProto) -> tuple[onnx.ModelProto, Weights, str]:
    """The model, the reader of its weights, and its name for error lines.

    Raises UserError where the file is absent, too large, no ONNX model, or of an unknown version.
    """
    if isinstance(source, onnx.ModelProto):
        where = source.graph.name or "model"
        model, weights = source, Weights(None)
    else:
        path, where = Path(source), str(source)
        model, weights = _parse(path, where), Weights(path.parent)
    if not model.HasField("graph") or not model.graph.output:
        raise UserError("not an ONNX model: it has no graph with outputs", where=where)
    if model.ir_version < _IR_VERSION_MIN:
        raise UserError(f"ONNX IR version {model.ir_version} is older than 3", where=where)
    newest = onnx.defs.onnx_opset_version()
    for opset in model.opset_import:
        if opset.domain in ("", "ai.onnx") and not 1 <= opset.version <= newest:
            raise UserError(f"opset {opset.version} is unknown (1 to {newest} are)", where=where)
    return model, weights, where


def _parse(path: Path, where: str) -> onnx.ModelProto:
    try:
        size = path.stat().st_size
        if not path.is_file():
            raise UserError("not a file", where=where)
        if size > PROTOBUF_BYTES_MAX:
            raise UserError(f"{size} bytes exceed the 2 GiB of a protobuf", where=where)
        data = path.read_bytes()
    except (OSError, ValueError) as error:
        raise UserError(f"cannot be read: {error}", where=where) from error
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except (DecodeError, RuntimeError) as error:
        raise UserError(f"not an ONNX model: {error}", where=where) from error
    return model
