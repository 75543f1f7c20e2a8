"""Every second (third, …) pixel of a packed image, for strided 1×1 convolutions.

A register tile that steps over pixels touches twice the lines and, in images of 2ⁿ bytes a row, few
cache sets. Pixels copied out once make it a product of matrices, whose tiles cross rows.
"""

from __future__ import annotations

import hashlib

from tenantdl.compile.context import Context
from tenantdl.compile.graph import TensorType
from tenantdl.compile.kernels.emit import Emitter
from tenantdl.compile.kernels.layout import Packed
from tenantdl.compile.kernels.rows import spread
from tenantdl.compile.operator import Kernel

# As many blocks of output channels as make a copied line worth its way.
BLOCKS_MIN = 8


def subsampled(
    context: Context, value: str, source: str, data: Packed, stride: tuple[int, int]
) -> tuple[str, Packed]:
    """A buffer with every `stride`-th pixel of `value`, which lies in `source` as `data`."""
    height, width = (
        -(-extent // step) for extent, step in zip((data.height, data.width), stride, strict=True)
    )
    out = Packed(data.batch, data.channels, height, width, data.lanes)
    name = f"{value}#every{stride[0]}x{stride[1]}"
    if name not in context.program.buffers:
        context.declare(name, TensorType(out.shape, "float32"))
        context.emit(f"subsample {value}", "subsample", _kernel(data, out, stride), (source, name))
    return name, out


def _kernel(data: Packed, out: Packed, stride: tuple[int, int]) -> Kernel:
    digest = hashlib.sha256(repr((data, out, stride)).encode()).hexdigest()[:12]
    with Emitter(f"subsample_{digest}", data.lanes) as e:
        source, target = e.param("data", data.shape), e.param("out", out.shape)
        elements = out.batch * out.channels * out.height * out.width
        with spread(e, out.batch * out.height, elements) as task:
            n, y = task // out.height, task % out.height
            with e.serial(out.blocks) as block, e.serial(out.width) as x:
                pixel = e.load(source, data.index(n, block, y * stride[0], x * stride[1], 0))
                e.store(target, out.index(n, block, y, x, 0), pixel)
    return e.kernel()
