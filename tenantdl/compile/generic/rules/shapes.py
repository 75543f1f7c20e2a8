"""Operators that move elements to places known now."""

from __future__ import annotations

from typing import Any

from tvm import relax, te, tirx

from tenantdl.compile.frontend.refusal import Refusal
from tenantdl.compile.generic.rules.use import Rule, Use, dtype_of, immediate, normalised


def _reshape(use: Use) -> Any:
    return relax.op.reshape(use.inputs[0], use.out.shape)


def _expand(use: Use) -> Any:
    return relax.op.broadcast_to(use.inputs[0], use.out.shape)


def _identity(use: Use) -> Any:
    return use.inputs[0]


def _reverse_sequence(use: Use) -> Any:
    batch_axis, time_axis = use.attrs.get("batch_axis", 1), use.attrs.get("time_axis", 0)

    def compute(data: Any, lengths: Any) -> Any:
        def pick(*out: Any) -> Any:
            length = lengths(out[batch_axis]).astype("int64")
            time = out[time_axis]
            length = tirx.min(length, int(data.shape[time_axis]))
            at = list(out)
            at[time_axis] = tirx.if_then_else(time < length, length - 1 - time, time)
            return data(*at)

        return te.compute(use.out.shape, pick)

    return use.te(compute, *use.inputs)


def _trilu(use: Use) -> Any:
    upper = bool(use.attrs.get("upper", 1))
    offset = use.array(1)
    if use.has(1) and offset is None:
        raise Refusal("its diagonal must be constant")
    k = int(offset.reshape(-1)[0]) if offset is not None else 0

    def compute(data: Any) -> Any:
        def pick(*out: Any) -> Any:
            row, column = out[-2], out[-1]
            keep = column - row >= k if upper else column - row <= k
            return tirx.if_then_else(keep, data(*out), immediate(0, dtype_of(data)))

        return te.compute(data.shape, pick)

    return use.te(compute, use.inputs[0])


def _concat(use: Use) -> Any:
    axis = normalised(use.attrs["axis"], len(use.out.shape))
    return relax.op.concat([value for value in use.inputs if value is not None], axis)


def _transpose(use: Use) -> Any:
    return relax.op.permute_dims(use.inputs[0], use.attrs.get("perm"))


def _split(use: Use) -> list[Any]:
    axis = normalised(use.attrs.get("axis", 0), len(use.shape()))
    source = use.inputs[0]
    results: list[Any] = []
    begin = 0
    parts = use.array(1)
    sizes = _part_sizes(use, axis) if parts is None else [int(part) for part in parts]
    for kind, size in zip(use.kinds, sizes, strict=False):
        part = None
        if kind is not None:
            part = relax.op.strided_slice(source, [axis], [begin], [begin + size])
        results.append(part)
        begin += size
    return results


def _part_sizes(use: Use, axis: int) -> list[int]:
    """Equal parts; a smaller one last."""
    extent = use.shape()[axis]
    size = -(-extent // len(use.kinds))
    return [min(size, extent - size * index) for index in range(len(use.kinds))]


def _depth_to_space(use: Use) -> Any:
    n, c, h, w = use.shape()
    block = use.attrs["blocksize"]
    if use.attrs.get("mode", "DCR") == "DCR":
        split, order = [n, block, block, c // block**2, h, w], [0, 3, 4, 1, 5, 2]
    else:
        split, order = [n, c // block**2, block, block, h, w], [0, 1, 4, 2, 5, 3]
    parts = use.emit(relax.op.reshape(use.inputs[0], split))
    return relax.op.reshape(use.emit(relax.op.permute_dims(parts, order)), use.out.shape)


def _space_to_depth(use: Use) -> Any:
    n, c, h, w = use.shape()
    block = use.attrs["blocksize"]
    parts = use.emit(relax.op.reshape(use.inputs[0], [n, c, h // block, block, w // block, block]))
    order = [0, 3, 5, 1, 2, 4] if use.attrs.get("mode", "DCR") == "DCR" else [0, 1, 3, 5, 2, 4]
    return relax.op.reshape(use.emit(relax.op.permute_dims(parts, order)), use.out.shape)


def _tile(use: Use) -> Any:
    shape = use.shape()

    def compute(data: Any) -> Any:
        return te.compute(
            use.out.shape,
            lambda *out: data(*(tirx.indexmod(i, e) for i, e in zip(out, shape, strict=True))),
        )

    return use.te(compute, use.inputs[0])


RULES: dict[str, Rule] = {
    **dict.fromkeys(("Reshape", "Squeeze", "Unsqueeze", "Flatten"), _reshape),
    "Concat": _concat,
    "DepthToSpace": _depth_to_space,
    "Expand": _expand,
    "Identity": _identity,
    "ReverseSequence": _reverse_sequence,
    "SpaceToDepth": _space_to_depth,
    "Split": _split,
    "Tile": _tile,
    "Transpose": _transpose,
    "Trilu": _trilu,
}
