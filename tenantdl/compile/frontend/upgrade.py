"""Brings operators of old opsets to their newest form, with the meaning they had.

ONNX's own converter gives up on whole models where one operator has no rule; here each rule knows
the static shapes and constants of its inputs, which makes most of them short. A rule changes the
call in place and returns [], or returns the values of the outputs.
"""

from __future__ import annotations

import numpy as np
import onnx

from tenantdl.compile.frontend.refusal import Refusal
from tenantdl.compile.frontend.scope import Call, Handler, Reader


def attr_to_input(call: Call, reader: Reader, name: str, index: int, dtype: str) -> None:
    """Moves an attribute to the input it became."""
    if name in call.attrs:
        while len(call.inputs) <= index:
            call.inputs.append("")
        call.inputs[index] = reader.builder.constant(call.attrs.pop(name), dtype)


def _broadcast(reader: Reader, call: Call) -> list[str]:
    """Opset < 7: the second operand is aligned at `axis` of the first."""
    if call.version < 7:
        axis = call.attrs.pop("axis", None)
        call.attrs.pop("broadcast", None)
        drop(call, "consumed_inputs")
        b = reader.builder
        left, right = b.shape(call.inputs[0]), b.shape(call.inputs[1])
        if axis is not None and right:
            trailing = len(left) - axis % max(len(left), 1) - len(right)
            target = [*right, *([1] * max(trailing, 0))]
            call.inputs[1] = b.op("Reshape", call.inputs[1], b.constant(target, "int64"))
    return []


def drop(call: Call, *names: str) -> None:
    """Removes attributes that no longer exist."""
    for name in names:
        call.attrs.pop(name, None)


def _elementwise(reader: Reader, call: Call) -> list[str]:
    if call.version < 6:
        drop(call, "consumed_inputs")
    return []


def _variadic(reader: Reader, call: Call) -> list[str]:
    """Operators of any number of operands become chains of two: fusion and templates know these."""
    drop(call, "consumed_inputs")
    value, *others = call.inputs
    if not others:
        return []
    for other in others:
        value = reader.builder.op("Add" if call.op == "Sum" else call.op, value, other)
    return [value]


def _concat(reader: Reader, call: Call) -> list[str]:
    """Parts without elements add nothing."""
    if call.version < 4:
        call.attrs.setdefault("axis", 1)
    parts = [name for name in call.inputs if 0 not in reader.builder.shape(name)]
    call.inputs = parts or call.inputs
    return []


def _cast(reader: Reader, call: Call) -> list[str]:
    if call.version < 6 and isinstance(call.attrs.get("to"), str):
        call.attrs["to"] = onnx.TensorProto.DataType.Value(call.attrs["to"].upper())
    return []


def _gemm(reader: Reader, call: Call) -> list[str]:
    if call.version < 7:
        drop(call, "broadcast")
    return []


def _grid_sample(reader: Reader, call: Call) -> list[str]:
    if call.version < 20:
        mode = call.attrs.get("mode", "bilinear")
        call.attrs["mode"] = {"bilinear": "linear", "bicubic": "cubic"}.get(mode, mode)
    return []


def _pad(reader: Reader, call: Call) -> list[str]:
    if call.version < 2 and "paddings" in call.attrs:
        call.attrs["pads"] = call.attrs.pop("paddings")
    if call.version < 11:
        attr_to_input(call, reader, "pads", 1, "int64")
        attr_to_input(call, reader, "value", 2, reader.builder.dtype(call.inputs[0]))
    return []


def _reduce(reader: Reader, call: Call) -> list[str]:
    if call.version < (13 if call.op == "ReduceSum" else 18):
        attr_to_input(call, reader, "axes", 1, "int64")
    return []


def _reshape(reader: Reader, call: Call) -> list[str]:
    if call.version < 5:
        drop(call, "consumed_inputs")
        attr_to_input(call, reader, "shape", 1, "int64")
    return []


def _resize(reader: Reader, call: Call) -> list[str]:
    """Opset 10 took (data, scales) and sampled as Upsample did."""
    if call.version < 11:
        call.inputs = [call.inputs[0], "", call.inputs[1]]
        call.attrs |= {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    else:
        for index in (2, 3):  # opset 11 writes "not given" as an empty tensor
            if call.input(index) and 0 in reader.builder.shape(call.inputs[index]):
                call.inputs[index] = ""
        if (
            call.input(1)
            and call.attrs.get("coordinate_transformation_mode") != "tf_crop_and_resize"
        ):
            call.inputs[1] = ""
    return []


def _upsample(reader: Reader, call: Call) -> list[str]:
    b = reader.builder
    data = call.inputs[0]
    if call.version < 7:
        factors = [1.0, 1.0, call.attrs.get("height_scale"), call.attrs.get("width_scale")]
        scales = b.constant(factors, "float32")
    elif call.version < 9:
        scales = b.constant(call.attrs.get("scales"), "float32")
    else:
        scales = call.inputs[1]
    mode = {"bilinear": "linear"}.get(call.attrs.get("mode", "nearest"), call.attrs.get("mode"))
    attrs = {"mode": mode or "nearest", "nearest_mode": "floor"}
    attrs["coordinate_transformation_mode"] = "asymmetric"
    return b.emit("Resize", [data, "", scales], attrs, call.outputs)


def _scatter(reader: Reader, call: Call) -> list[str]:
    return reader.builder.emit("ScatterElements", call.inputs, call.attrs, call.outputs)


def _slice(reader: Reader, call: Call) -> list[str]:
    if call.version < 10:
        for index, name in enumerate(("starts", "ends", "axes"), start=1):
            attr_to_input(call, reader, name, index, "int64")
    return []


def _split(reader: Reader, call: Call) -> list[str]:
    if call.version < 13:
        attr_to_input(call, reader, "split", 1, "int64")
    if call.version < 18 and not call.input(1):
        call.attrs["num_outputs"] = len(call.outputs)
    return []


def _axes_attr(reader: Reader, call: Call) -> list[str]:
    if call.version < 13:
        attr_to_input(call, reader, "axes", 1, "int64")
    return []


def _tile(reader: Reader, call: Call) -> list[str]:
    if call.version < 6:
        b = reader.builder
        tiles, axis = (b.const(call.input(index)) for index in (1, 2))
        if tiles is None or axis is None:
            raise Refusal("its repeats must be constant")
        repeats = np.ones(len(b.shape(call.inputs[0])), np.int64)
        repeats[int(axis.reshape(-1)[0])] = int(tiles.reshape(-1)[0])
        call.inputs = [call.inputs[0], b.constant(repeats)]
    return []


def _top_k(reader: Reader, call: Call) -> list[str]:
    if call.version < 10:
        attr_to_input(call, reader, "k", 1, "int64")
        call.inputs[1] = reader.builder.op(
            "Reshape", call.inputs[1], reader.builder.constant([1], "int64")
        )
    return []


HANDLERS: dict[str, Handler] = {
    **dict.fromkeys(("Add", "Sub", "Mul", "Div", "Pow", "And", "Or", "Xor"), _broadcast),
    **dict.fromkeys(("Greater", "Less", "Equal"), _broadcast),
    **dict.fromkeys(
        ("Abs", "Ceil", "Elu", "Exp", "Floor", "HardSigmoid", "LeakyRelu"), _elementwise
    ),
    **dict.fromkeys(("Log", "Mean", "Neg", "Reciprocal", "Relu"), _elementwise),
    **dict.fromkeys(("Selu", "Sigmoid", "Sqrt", "Tanh"), _elementwise),
    **dict.fromkeys(("Max", "Min", "Sum"), _variadic),
    **dict.fromkeys(("InstanceNormalization",), _elementwise),
    **dict.fromkeys(("ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp"), _reduce),
    **dict.fromkeys(("ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd"), _reduce),
    **dict.fromkeys(("ReduceSum", "ReduceSumSquare"), _reduce),
    **dict.fromkeys(("Squeeze", "Unsqueeze"), _axes_attr),
    "Cast": _cast,
    "Concat": _concat,
    "Gemm": _gemm,
    "GridSample": _grid_sample,
    "Pad": _pad,
    "Reshape": _reshape,
    "Resize": _resize,
    "Scatter": _scatter,
    "Slice": _slice,
    "Split": _split,
    "Tile": _tile,
    "TopK": _top_k,
    "Upsample": _upsample,
}
