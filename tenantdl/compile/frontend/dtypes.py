"""ONNX element types and NumPy dtype names.

Tensors of other types than `RUNNABLE` may exist only as constants that fold away (weights quantised
to four bits, for one); no value of the finished graph has them.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper

from tenantdl.compile.frontend.refusal import Refusal

RUNNABLE = frozenset(
    {"float16", "float32", "float64", "bool"}
    | {f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)}
)

_NAMES: dict[int, str] = {
    code: np.dtype(helper.tensor_dtype_to_np_dtype(code)).name
    for code in TensorProto.DataType.values()
    if code not in (TensorProto.UNDEFINED, TensorProto.STRING)
}
_CODES: dict[str, int] = {name: code for code, name in _NAMES.items()}


def dtype_name(code: int) -> str:
    """The NumPy dtype name of an ONNX element type. Raises Refusal for strings and the unknown."""
    if code == TensorProto.STRING:
        raise Refusal("tensors of strings are not supported")
    if code not in _NAMES:
        raise Refusal(f"unknown element type {code}")
    return _NAMES[code]


def type_code(dtype: str) -> int:
    """The ONNX element type of a NumPy dtype name. Raises Refusal where there is none."""
    if dtype not in _CODES:
        raise Refusal(f"dtype {dtype} has no ONNX element type")
    return _CODES[dtype]


def type_proto(shape: tuple[int, ...], dtype: str) -> onnx.TypeProto:
    """The ONNX type of a tensor."""
    return helper.make_tensor_type_proto(type_code(dtype), shape)
