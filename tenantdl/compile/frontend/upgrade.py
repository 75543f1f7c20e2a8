"""Brings operators of old opsets to their newest form, with the meaning they had.

ONNX's own converter gives up on whole models where one operator has no rule; here each rule knows
the static shapes and constants of its inputs, which makes most of them short. A rule changes the
call in place and returns [], or returns the values of the outputs.
"""

from __future__ import annotations

import math

import numpy as np
import onnx

from tenantdl.compile.frontend.dtypes import type_code
from tenantdl.compile.frontend.refusal import Refusal
from tenantdl.compile.frontend.scope import Call, Handler, Reader


def _attr_to_input(call: Call, reader: Reader, name: str, index: int, dtype: str) -> None:
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
        _drop(call, "consumed_inputs")
        b = reader.builder
        left, right = b.shape(call.inputs[0]), b.shape(call.inputs[1])
        if axis is not None and right:
            trailing = len(left) - axis % max(len(left), 1) - len(right)
            target = [*right, *([1] * max(trailing, 0))]
            call.inputs[1] = b.op("Reshape", call.inputs[1], b.constant(target, "int64"))
    return []


def _drop(call: Call, *names: str) -> None:
    for name in names:
        call.attrs.pop(name, None)


def _elementwise(reader: Reader, call: Call) -> list[str]:
    if call.version < 6:
        _drop(call, "consumed_inputs")
    return []


def _batch_normalization(reader: Reader, call: Call) -> list[str]:
    if call.version < 9:
        if call.attrs.pop("spatial", 1) != 1:
            raise Refusal("spatial = 0 is not supported")
        if call.version < 7 and call.attrs.pop("is_test", 0) == 0 and len(call.outputs) > 1:
            raise Refusal("training mode is not supported")
        _drop(call, "consumed_inputs")
    if call.version < 14 and any(call.wants(i) for i in range(1, len(call.outputs))):
        raise Refusal("training mode is not supported")
    if call.attrs.pop("training_mode", 0):
        return _batch_statistics(reader, call)
    del call.outputs[1:]
    return []


def _batch_statistics(reader: Reader, call: Call) -> list[str]:
    """Training mode: statistics of this batch, and the running ones moved towards them."""
    b = reader.builder
    data, scale, bias, mean, variance = call.inputs
    momentum = call.attrs.pop("momentum", 0.9)
    rank = len(b.shape(data))
    axes = b.constant([axis for axis in range(rank) if axis != 1], "int64")
    now = b.op("ReduceMean", data, axes, keepdims=1)
    centred = b.op("Sub", data, now)
    spread = b.op("ReduceMean", b.op("Mul", centred, centred), axes, keepdims=0)
    now = b.op("Squeeze", now, axes)
    normal = b.emit("BatchNormalization", [data, scale, bias, now, spread], call.attrs)[0]

    def moved(old: str, new: str) -> str:
        kept = b.op("Mul", old, b.constant(momentum, b.dtype(old)))
        gained = b.op("Mul", new, b.constant(1 - momentum, b.dtype(new)))
        return b.op("Add", kept, b.op("Cast", gained, to=_code(reader, old)))

    return [normal, moved(mean, now), moved(variance, spread)][: len(call.outputs)]


def _code(reader: Reader, value: str) -> int:
    return type_code(reader.builder.dtype(value))


def _clip(reader: Reader, call: Call) -> list[str]:
    if call.version < 11:
        dtype = reader.builder.dtype(call.inputs[0])
        _drop(call, "consumed_inputs")
        _attr_to_input(call, reader, "min", 1, dtype)
        _attr_to_input(call, reader, "max", 2, dtype)
    return []


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


def _dropout(reader: Reader, call: Call) -> list[str]:
    """Inference: the identity, and a mask of ones."""
    b = reader.builder
    if call.version >= 12:
        training = b.const(call.input(2)) if call.input(2) else np.zeros(())
        ratio = b.const(call.input(1)) if call.input(1) else np.full((), 0.5)
        still = ratio is not None and not ratio.any()
        if not still and (training is None or training.any()):
            raise Refusal("training mode is not supported")
    data = call.inputs[0]
    results = [data]
    if call.wants(1):
        dtype = "bool" if call.version >= 10 else b.dtype(data)
        results.append(b.constant(np.broadcast_to(np.ones((), dtype), b.shape(data))))
    return results


def _gemm(reader: Reader, call: Call) -> list[str]:
    if call.version < 7:
        _drop(call, "broadcast")
    return []


def _group_normalization(reader: Reader, call: Call) -> list[str]:
    """Opset 18: scale and bias a group; since 21 a channel."""
    if call.version < 21:
        b = reader.builder
        channels = b.shape(call.inputs[0])[1]
        groups = call.attrs["num_groups"]
        for index in (1, 2):
            if b.shape(call.inputs[index]) != (groups,) or channels % groups:
                raise Refusal(f"{groups} groups do not fit {channels} channels")
            column = b.op("Reshape", call.inputs[index], b.constant([groups, 1], "int64"))
            wide = b.op("Expand", column, b.constant([groups, channels // groups], "int64"))
            call.inputs[index] = b.op("Reshape", wide, b.constant([channels], "int64"))
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
        _attr_to_input(call, reader, "pads", 1, "int64")
        _attr_to_input(call, reader, "value", 2, reader.builder.dtype(call.inputs[0]))
    return []


def _prelu(reader: Reader, call: Call) -> list[str]:
    """Opset < 7: the slope belongs to axis 1."""
    b = reader.builder
    if call.version < 7:
        _drop(call, "consumed_inputs")
        slope = b.shape(call.inputs[1])
        if math.prod(slope) > 1:
            target = [math.prod(slope), *([1] * (len(b.shape(call.inputs[0])) - 2))]
            call.inputs[1] = b.op("Reshape", call.inputs[1], b.constant(target, "int64"))
    return []


def _reduce(reader: Reader, call: Call) -> list[str]:
    if call.version < (13 if call.op == "ReduceSum" else 18):
        _attr_to_input(call, reader, "axes", 1, "int64")
    return []


def _reshape(reader: Reader, call: Call) -> list[str]:
    if call.version < 5:
        _drop(call, "consumed_inputs")
        _attr_to_input(call, reader, "shape", 1, "int64")
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
            _attr_to_input(call, reader, name, index, "int64")
    return []


def _softmax(reader: Reader, call: Call) -> list[str]:
    """Opset < 13: over all dimensions from `axis` (default 1) on, as one."""
    if call.version >= 13:
        return []
    b = reader.builder
    data = call.inputs[0]
    shape = b.shape(data)
    axis = call.attrs.get("axis", 1)
    if not -len(shape) <= axis <= len(shape):
        raise Refusal(f"axis {axis} is outside of {list(shape)}")
    axis = axis + len(shape) if axis < 0 else axis
    if math.prod(shape[axis:-1]) == 1 and axis < len(shape):  # only the last axis counts
        call.attrs["axis"] = -1
        return []
    rows = [math.prod(shape[:axis]), math.prod(shape[axis:])]
    flat = b.op("Reshape", data, b.constant(rows, "int64"))
    result = b.op(call.op, flat, axis=-1)
    return b.emit("Reshape", [result, b.constant(shape, "int64")], {}, call.outputs)


def _split(reader: Reader, call: Call) -> list[str]:
    if call.version < 13:
        _attr_to_input(call, reader, "split", 1, "int64")
    if call.version < 18 and not call.input(1):
        call.attrs["num_outputs"] = len(call.outputs)
    return []


def _axes_attr(reader: Reader, call: Call) -> list[str]:
    if call.version < 13:
        _attr_to_input(call, reader, "axes", 1, "int64")
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
        _attr_to_input(call, reader, "k", 1, "int64")
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
    **dict.fromkeys(("Log", "Max", "Mean", "Min", "Neg", "Reciprocal", "Relu"), _elementwise),
    **dict.fromkeys(("Selu", "Sigmoid", "Sqrt", "Sum", "Tanh"), _elementwise),
    **dict.fromkeys(("InstanceNormalization",), _elementwise),
    **dict.fromkeys(("ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp"), _reduce),
    **dict.fromkeys(("ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd"), _reduce),
    **dict.fromkeys(("ReduceSum", "ReduceSumSquare"), _reduce),
    **dict.fromkeys(("Softmax", "LogSoftmax", "Hardmax"), _softmax),
    **dict.fromkeys(("Squeeze", "Unsqueeze"), _axes_attr),
    "BatchNormalization": _batch_normalization,
    "Cast": _cast,
    "Clip": _clip,
    "Concat": _concat,
    "Dropout": _dropout,
    "Gemm": _gemm,
    "GridSample": _grid_sample,
    "GroupNormalization": _group_normalization,
    "Pad": _pad,
    "PRelu": _prelu,
    "Reshape": _reshape,
    "Resize": _resize,
    "Scatter": _scatter,
    "Slice": _slice,
    "Split": _split,
    "Tile": _tile,
    "TopK": _top_k,
    "Upsample": _upsample,
}
