"""What a stem reads of a row-major image for one row of its output, copied out with zeros around.

The copy stays in L1, so that the image needs no border and no operator has to pad it.
"""

from __future__ import annotations

from typing import Any

from tvm.script.ir_builder import tirx as T

from tenantdl.compile.kernels.chain_spec import Window
from tenantdl.compile.kernels.emit import Emitter, Index, Register
from tenantdl.compile.kernels.layout import Planar
from tenantdl.compile.kernels.rows import each_vector
from tenantdl.compile.kernels.tiles import multiply


class Patch:
    """Rows of `image` under `window`; made inside the parallel task that uses it."""

    def __init__(self, e: Emitter, image: Planar, window: Window, columns: int) -> None:
        self._e, self._image, self._window = e, image, window
        width = (columns - 1) * window.stride[1] + window.kernel[1]
        width = max(width, window.pads[1] + image.width)
        # The image begins at a whole vector: its rows are stored without crossing lines.
        self._shift = -window.pads[1] % e.lanes
        width = -(-(self._shift + width) // e.lanes) * e.lanes
        self._rows = e.scratch((image.channels, window.kernel[0], width))
        self._width = width

    def copy(self, data: Any, n: Index, row: Index) -> None:
        """Take from `data` what row `row` of the output needs."""
        e, image, window = self._e, self._image, self._window
        left = self._shift + window.pads[1]
        with e.serial(image.channels) as c, e.serial(window.kernel[0]) as kh:
            y = e.integer(row * window.stride[0] - window.pads[0] + kh)
            for x in (*range(self._shift, left), *range(left + image.width, self._width)):
                e.store(self._rows, (c, kh, x), T.float32(0), 1)
            with e.branches(T.And(y >= 0, y < image.height)) as (inside, outside):
                with inside:
                    for x, lanes in each_vector(e, image.width):
                        value = e.load(data, (n, c, y, x), lanes)
                        e.store(self._rows, (c, kh, left + x), value, lanes)
                with outside:
                    for x, lanes in each_vector(e, image.width):
                        e.store(self._rows, (c, kh, left + x), e.splat(0.0, lanes), lanes)

    def reduce(self, made: list[list[Register]], weights: Any, block: Index, x0: Index) -> None:
        """The reduction of a tile [pixel][block] of outputs from column `x0` on."""
        e = self._e
        (kh, kw), step = self._window.kernel, self._window.stride[1]
        # Columns outermost: neighbours share scalars, which the compiler would keep and then spill.
        with e.serial(kw) as j, e.serial(kh) as i, e.serial(self._image.channels) as c:
            vectors = [
                e.bind(e.load(weights, (block + b, c, i, j, 0))) for b in range(len(made[0]))
            ]
            for pixel, line in enumerate(made):
                x = self._shift + (x0 + pixel) * step + j
                multiply(e, line, self._rows[c, i, x], vectors)
