"""Fourier transforms as products with their matrices: at the sizes of audio models that is cheap,
and a matrix product has a fast kernel."""

from __future__ import annotations

import numpy as np

from tenantdl.compile.frontend.refusal import Refusal
from tenantdl.compile.frontend.scope import Call, Handler, Reader

_LENGTH_MAX = 4096  # the matrices have its square as size


def _transform(
    reader: Reader, real: str, imaginary: str, length: int, inverse: bool, bins: int
) -> str:
    """[..., length] → [..., bins, 2]. `imaginary` may be ""."""
    b = reader.builder
    angle = 2 * np.pi * np.outer(np.arange(length), np.arange(bins)) / length
    cos, sin = np.cos(angle), np.sin(angle) * (1 if inverse else -1)
    if inverse:
        cos, sin = cos / length, sin / length
    dtype = b.dtype(real)
    total = b.op("MatMul", real, b.constant(np.concatenate([cos, sin], 1), dtype))
    if imaginary:
        other = b.constant(np.concatenate([-sin, cos], 1), dtype)
        total = b.op("Add", total, b.op("MatMul", imaginary, other))
    lead = b.shape(real)[:-1]
    parts = b.op("Reshape", total, b.constant([*lead, 2, bins], "int64"))
    rank = len(lead) + 2
    return b.op("Transpose", parts, perm=[*range(rank - 2), rank - 1, rank - 2])


def _real_inverse(reader: Reader, real: str, imaginary: str, length: int) -> str:
    """[..., length // 2 + 1] of the spectrum of a real signal → [..., length, 1]."""
    b = reader.builder
    bins = length // 2 + 1
    angle = 2 * np.pi * np.outer(np.arange(bins), np.arange(length)) / length
    # The other half of the spectrum is the mirror image: all but its ends count twice.
    twice = np.array([1 if k == 0 or 2 * k == length else 2 for k in range(bins)])[:, None]
    dtype = b.dtype(real)
    total = b.op("MatMul", real, b.constant(twice * np.cos(angle) / length, dtype))
    if imaginary:
        sine = b.constant(-twice * np.sin(angle) / length, dtype)
        total = b.op("Add", total, b.op("MatMul", imaginary, sine))
    return b.op("Unsqueeze", total, b.constant([-1], "int64"))


def _number(reader: Reader, call: Call, index: int, default: int) -> int:
    if not call.input(index):
        return default
    value = reader.builder.const(call.inputs[index])
    if value is None:
        raise Refusal("its lengths and axis must be constant")
    return int(value.reshape(-1)[0])


def _parts(reader: Reader, data: str) -> tuple[str, str]:
    """Real and imaginary part of [..., 1 or 2], without that dimension."""
    b = reader.builder
    if b.shape(data)[-1] not in (1, 2):
        raise Refusal(f"its input {list(b.shape(data))} must end in 1 (real) or 2 (complex)")
    real = b.op("Gather", data, b.constant(0, "int64"), axis=-1)
    if b.shape(data)[-1] == 1:
        return real, ""
    return real, b.op("Gather", data, b.constant(1, "int64"), axis=-1)


def _check_length(length: int) -> None:
    if not 1 <= length <= _LENGTH_MAX:
        raise Refusal(f"a transform of length {length} is not within 1 to {_LENGTH_MAX}")


def _dft(reader: Reader, call: Call) -> list[str]:
    b = reader.builder
    data = call.inputs[0]
    rank = len(b.shape(data))
    default = 1 if call.version < 20 else -2
    axis = call.attrs.get("axis", default) if call.version < 20 else _number(reader, call, 2, -2)
    axis += rank if axis < 0 else 0
    if not 0 <= axis < rank - 1:
        raise Refusal(f"axis {axis} is not one of the signal's")
    inverse, onesided = (bool(call.attrs.get(key, 0)) for key in ("inverse", "onesided"))
    half = inverse and onesided
    length = _number(reader, call, 1, b.shape(data)[axis] * (2 if half else 1) - (2 if half else 0))
    _check_length(length)
    order = [*(k for k in range(rank - 1) if k != axis), axis]
    bins = length // 2 + 1 if onesided else length
    last = [
        _fitted(reader, b.op("Transpose", part, perm=order), bins if half else length)
        if part
        else ""
        for part in _parts(reader, data)
    ]
    if half:
        result = _real_inverse(reader, last[0], last[1], length)
    else:
        result = _transform(reader, last[0], last[1], length, inverse, bins)
    back = [order.index(k) for k in range(rank - 1)]
    return [b.op("Transpose", result, perm=[*back, rank - 1])]


def _fitted(reader: Reader, value: str, length: int) -> str:
    """The last axis cut, or filled with zeros, to `length`."""
    b = reader.builder
    rank, have = len(b.shape(value)), b.shape(value)[-1]
    if have > length:
        ends = [b.constant([n], "int64") for n in (0, length, rank - 1)]
        return b.op("Slice", value, *ends)
    if have < length:
        pads = [0] * 2 * rank
        pads[-1] = length - have
        return b.op("Pad", value, b.constant(pads, "int64"))
    return value


def _stft(reader: Reader, call: Call) -> list[str]:
    b = reader.builder
    data, window = call.inputs[0], call.input(2)
    if len(b.shape(data)) == 2:
        data = b.op("Unsqueeze", data, b.constant([2], "int64"))
    step = _number(reader, call, 1, 0)
    length = _number(reader, call, 3, b.shape(window)[0] if window else 0)
    _check_length(length)
    frames = 1 + (b.shape(data)[1] - length) // step if step > 0 else 0
    if frames < 1:
        raise Refusal(f"frames of {length} every {step} do not fit {b.shape(data)[1]} samples")
    places = np.arange(frames)[:, None] * step + np.arange(length)[None, :]
    parts = []
    for part in _parts(reader, data):
        framed = b.op("Gather", part, b.constant(places, "int64"), axis=1) if part else ""
        parts.append(b.op("Mul", framed, window) if framed and window else framed)
    bins = length // 2 + 1 if call.attrs.get("onesided", 1) else length
    return [_transform(reader, parts[0], parts[1], length, False, bins)]


HANDLERS: dict[str, Handler] = {"DFT": _dft, "STFT": _stft}
