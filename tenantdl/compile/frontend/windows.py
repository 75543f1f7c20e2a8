"""Sliding windows: implicit padding (`auto_pad`, `output_shape`) becomes explicit `pads`."""

from __future__ import annotations

from collections.abc import Sequence

from tenantdl.compile.frontend.refusal import Refusal
from tenantdl.compile.frontend.scope import Call, Handler, Reader

_WEIGHTS = {"Conv": 1, "ConvInteger": 1, "QLinearConv": 3, "ConvTranspose": 1}


def _geometry(reader: Reader, call: Call) -> tuple[list[int], list[int], list[int], list[int]]:
    """Image, kernel, strides, dilations; an ill-formed node is left to the checks of inference."""
    image = list(reader.builder.shape(call.inputs[0])[2:])
    weights = _WEIGHTS.get(call.op)
    kernel = call.attrs.get("kernel_shape")
    if kernel is None and weights is not None:
        kernel = list(reader.builder.shape(call.inputs[weights])[2:])
    kernel = list(kernel or ())
    strides = list(call.attrs.get("strides", [1] * len(image)))
    dilations = list(call.attrs.get("dilations", [1] * len(image)))
    if not image or not all(len(v) == len(image) for v in (kernel, strides, dilations)):
        raise Refusal(f"kernel {kernel}, strides and dilations do not fit the image {image}")
    if min([*strides, *dilations, *kernel]) < 1:
        raise Refusal("kernel, strides and dilations must be positive")
    return image, kernel, strides, dilations


def _window(reader: Reader, call: Call) -> list[str]:
    mode = call.attrs.pop("auto_pad", "NOTSET")
    image, kernel, strides, dilations = _geometry(reader, call)
    if mode in ("SAME_UPPER", "SAME_LOWER"):
        totals = [
            max((-(-size // stride) - 1) * stride + (extent - 1) * dilation + 1 - size, 0)
            for size, extent, stride, dilation in zip(
                image, kernel, strides, dilations, strict=True
            )
        ]
        call.attrs["pads"] = _halves(totals, more_in_front=mode == "SAME_LOWER")
    elif mode == "VALID":
        call.attrs["pads"] = [0] * 2 * len(image)
    elif mode != "NOTSET":
        raise Refusal(f"auto_pad '{mode}' is unknown")
    return []


def _halves(totals: Sequence[int], *, more_in_front: bool) -> list[int]:
    """Begins, then ends; the odd one goes in front or behind."""
    small = [total // 2 for total in totals]
    large = [total - half for total, half in zip(totals, small, strict=True)]
    return [*large, *small] if more_in_front else [*small, *large]


def _transposed(reader: Reader, call: Call) -> list[str]:
    """The paddings that give the wanted output."""
    mode = call.attrs.pop("auto_pad", "NOTSET")
    wanted = call.attrs.pop("output_shape", None)
    image, kernel, strides, dilations = _geometry(reader, call)
    if wanted is None and mode in ("SAME_UPPER", "SAME_LOWER"):
        wanted = [size * stride for size, stride in zip(image, strides, strict=True)]
    if wanted is None:
        return []
    extra = call.attrs.get("output_padding", [0] * len(image))
    totals = [
        stride * (size - 1) + more + (extent - 1) * dilation + 1 - out
        for size, extent, stride, dilation, more, out in zip(
            image, kernel, strides, dilations, extra, wanted[-len(image) :], strict=True
        )
    ]
    call.attrs["pads"] = _halves(
        [max(total, 0) for total in totals], more_in_front=mode != "SAME_UPPER"
    )
    # A wanted output beyond the reach of the kernel is filled up behind.
    call.attrs["output_padding"] = [
        more + max(-total, 0) for more, total in zip(extra, totals, strict=True)
    ]
    return []


HANDLERS: dict[str, Handler] = {
    **dict.fromkeys(("Conv", "ConvInteger", "QLinearConv"), _window),
    **dict.fromkeys(("AveragePool", "MaxPool", "LpPool"), _window),
    "ConvTranspose": _transposed,
}
