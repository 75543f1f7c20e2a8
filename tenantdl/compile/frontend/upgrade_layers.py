"""Brings the layers of old opsets (normalisations, activations with parameters, softmax) to their
newest form; upgrade.py says how.
"""

from __future__ import annotations

import math

import numpy as np

from tenantdl.compile.frontend.dtypes import type_code
from tenantdl.compile.frontend.refusal import Refusal
from tenantdl.compile.frontend.scope import Call, Handler, Reader
from tenantdl.compile.frontend.upgrade import attr_to_input, drop


def _batch_normalization(reader: Reader, call: Call) -> list[str]:
    if call.version < 9:
        if call.attrs.pop("spatial", 1) != 1:
            raise Refusal("spatial = 0 is not supported")
        if call.version < 7 and call.attrs.pop("is_test", 0) == 0 and len(call.outputs) > 1:
            raise Refusal("training mode is not supported")
        drop(call, "consumed_inputs")
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
        drop(call, "consumed_inputs")
        attr_to_input(call, reader, "min", 1, dtype)
        attr_to_input(call, reader, "max", 2, dtype)
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


def _prelu(reader: Reader, call: Call) -> list[str]:
    """Opset < 7: the slope belongs to axis 1."""
    b = reader.builder
    if call.version < 7:
        drop(call, "consumed_inputs")
        slope = b.shape(call.inputs[1])
        if math.prod(slope) > 1:
            target = [math.prod(slope), *([1] * (len(b.shape(call.inputs[0])) - 2))]
            call.inputs[1] = b.op("Reshape", call.inputs[1], b.constant(target, "int64"))
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


HANDLERS: dict[str, Handler] = {
    **dict.fromkeys(("Softmax", "LogSoftmax", "Hardmax"), _softmax),
    "BatchNormalization": _batch_normalization,
    "Clip": _clip,
    "Dropout": _dropout,
    "GroupNormalization": _group_normalization,
    "PRelu": _prelu,
}
