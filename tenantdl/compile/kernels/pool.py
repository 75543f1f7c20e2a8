"""Pooling on packed channels: windows that reach out of the image are cut, not padded.

Columns at the left and right edge are emitted one by one with their own window; the columns
between share one loop. Rows are cut by the bounds of the window's loop.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from tvm.script.ir_builder import tirx as T

from tenantdl.compile.context import Context, Form, Group
from tenantdl.compile.graph import Node
from tenantdl.compile.kernels.emit import Emitter, Index, Register, Value
from tenantdl.compile.kernels.layout import Packed
from tenantdl.compile.kernels.registry import Template
from tenantdl.compile.kernels.runs import even_runs
from tenantdl.compile.operator import Kernel

TILE_PIXELS = 8
_LOWEST = -3.402823466e38


@dataclass(frozen=True, slots=True)
class PoolSpec:
    """A pooling window. `pads`: top, left, bottom, right. `include_pad`: padding counts in an
    average."""

    data: Packed
    out: Packed
    average: bool
    kernel: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    pads: tuple[int, int, int, int]
    include_pad: bool = False


def _image(values: Any, rank: int, fill: int) -> list[int]:
    """Two-dimensional form of an attribute with `rank` numbers."""
    return [fill] * (2 - rank) + [int(v) for v in values]


def _spec(context: Context, node: Node, data: Packed, out: Packed) -> PoolSpec:
    rank = len(context.type(node.inputs[0]).shape) - 2
    attrs = node.attrs
    kernel = _image(attrs["kernel_shape"], rank, 1)
    stride = _image(attrs.get("strides", [1] * rank), rank, 1)
    dilation = _image(attrs.get("dilations", [1] * rank), rank, 1)
    pads = list(attrs.get("pads", [0] * 2 * rank))
    begin, end = _image(pads[:rank], rank, 0), _image(pads[rank:], rank, 0)
    mode = attrs.get("auto_pad", "NOTSET")
    if mode in ("SAME_UPPER", "SAME_LOWER"):
        for axis, (i, o) in enumerate(((data.height, out.height), (data.width, out.width))):
            reach = (o - 1) * stride[axis] + (kernel[axis] - 1) * dilation[axis] + 1
            total = max(0, reach - i)
            begin[axis] = total // 2 if mode == "SAME_UPPER" else total - total // 2
            end[axis] = total - begin[axis]
    elif mode == "VALID":
        begin, end = [0, 0], [0, 0]
    return PoolSpec(
        data,
        out,
        node.op == "AveragePool",
        (kernel[0], kernel[1]),
        (stride[0], stride[1]),
        (dilation[0], dilation[1]),
        (begin[0], begin[1], end[0], end[1]),
        bool(attrs.get("count_include_pad", 0)),
    )


def _form(context: Context, node: Node) -> Form | None:
    x = context.type(node.inputs[0])
    if x.dtype != "float32" or len(x.shape) not in (3, 4) or len(node.outputs) > 1:
        return None
    if x.size == 0 or context.type(node.outputs[0]).size == 0:
        return None
    return "packed" if context.array(node.inputs[0]) is None else None


def _lower(context: Context, group: Group) -> None:
    source, data = context.packed(group.anchor.inputs[0])
    target, out = context.new_packed(group.output)
    kernel = pool_kernel(_spec(context, group.anchor, data, out))
    context.emit(group.name, "pool", kernel, (source, target))


def _lower_global(context: Context, group: Group) -> None:
    source, data = context.packed(group.anchor.inputs[0])
    target, out = context.new_packed(group.output)
    average = group.anchor.op != "GlobalMaxPool"
    context.emit(group.name, "pool", global_pool(data, out, average), (source, target))


def is_global_average(node: Node, template: Template) -> bool:
    """Whether `template` makes `node` a global average pool of this module."""
    return template.lower is _lower_global and node.op != "GlobalMaxPool"


def _form_mean(context: Context, node: Node) -> Form | None:
    """ReduceMean over the image of a packed value, dimensions kept, is a global pool."""
    x = context.type(node.inputs[0])
    axes = context.array(node.inputs[1]) if len(node.inputs) > 1 and node.inputs[1] else None
    if axes is None or len(x.shape) != 4 or not node.attrs.get("keepdims", 1):
        return None
    if sorted(int(axis) % 4 for axis in axes.reshape(-1)) != [2, 3]:
        return None
    return _form(context, node) if context.forms.get(node.inputs[0]) == "packed" else None


def pool_kernel(spec: PoolSpec) -> Kernel:
    """Parameters: packed data, packed output."""
    digest = hashlib.sha256(repr(spec).encode()).hexdigest()[:12]
    with Emitter(f"pool_{digest}", spec.out.lanes) as e:
        _Pool(e, spec).emit()
    return e.kernel()


class _Pool:
    def __init__(self, e: Emitter, spec: PoolSpec) -> None:
        self.e, self.spec = e, spec
        self.data = e.param("data", spec.data.shape)
        self.out = e.param("out", spec.out.shape)

    def emit(self) -> None:
        e, out = self.e, self.spec.out
        with e.parallel(out.batch * out.blocks * out.height) as task:
            rows = out.blocks * out.height
            n, block, y = task // rows, task % rows // out.height, task % out.height
            inner = [x for x in range(out.width) if self._columns(x) == (0, self.spec.kernel[1])]
            first, last = (inner[0], inner[-1] + 1) if inner else (out.width, out.width)
            for x in (*range(first), *range(last, out.width)):
                self._tile(n, block, y, x, 1, self._columns(x))
            if last > first:
                for run in even_runs(last - first, TILE_PIXELS):
                    with e.serial(run.count) as tile:
                        x0 = tile * run.size + run.start + first
                        self._tile(n, block, y, x0, run.size, (0, self.spec.kernel[1]))

    def _columns(self, x: int) -> tuple[int, int]:
        """Columns of the window at output column `x` that lie in the image."""
        spec = self.spec
        offset = x * spec.stride[1] - spec.pads[1]
        step = spec.dilation[1]
        low = max(0, -(offset // step) if offset < 0 else 0)
        high = min(spec.kernel[1], -((offset - spec.data.width) // step))
        return low, max(low, high)

    def _tile(
        self, n: Index, block: Index, y: Index, x: Index, size: int, columns: tuple[int, int]
    ) -> None:
        e, spec = self.e, self.spec
        registers = e.registers(size, 0.0 if spec.average else _LOWEST)
        offset = y * spec.stride[0] - spec.pads[0]
        step = spec.dilation[0]
        low = T.max(0, (step - 1 - offset) // step)
        high = T.min(spec.kernel[0], (spec.data.height - offset + step - 1) // step)
        with e.serial(T.max(high - low, 0)) as row:
            image_y = offset + (low + row) * step
            for column in range(*columns):
                for i, register in enumerate(registers):
                    image_x = (x + i) * spec.stride[1] - spec.pads[1] + column * spec.dilation[1]
                    value = e.load(self.data, spec.data.index(n, block, image_y, image_x))
                    self._accumulate(register, value)
        scale = self._scale(offset, high - low, x, columns) if spec.average else None
        for i, register in enumerate(registers):
            value = register.get() if scale is None else register.get() * scale
            e.store(self.out, spec.out.index(n, block, y, x + i), value)

    def _accumulate(self, register: Register, value: Value) -> None:
        if self.spec.average:
            register.add(value)
        else:
            register.set(T.max(register.get(), value))

    def _scale(self, offset: Index, rows: Index, x: Index, columns: tuple[int, int]) -> Value:
        """One over the number of elements that the average counts."""
        spec, e = self.spec, self.e
        if not spec.include_pad:
            count = rows * (columns[1] - columns[0])
        else:  # padding counts, what ceil_mode reaches beyond it does not
            below = spec.data.height + spec.pads[2] - offset
            tall = T.min(spec.kernel[0], (below + spec.dilation[0] - 1) // spec.dilation[0])
            wide = spec.kernel[1]
            if isinstance(x, int):
                right = spec.data.width + spec.pads[3] - (x * spec.stride[1] - spec.pads[1])
                wide = min(wide, -(-right // spec.dilation[1]))
            count = tall * wide
        return e.bind(e.splat(e.bind(T.float32(1.0) / T.cast(T.max(count, 1), "float32"))))


def global_pool(data: Packed, out: Packed, average: bool) -> Kernel:
    """Parameters: packed data, packed output of one pixel."""
    digest = hashlib.sha256(repr((data, out, average)).encode()).hexdigest()[:12]
    pixels = data.height * data.width
    with Emitter(f"global_pool_{digest}", data.lanes) as e:
        source, target = e.param("data", data.shape), e.param("out", out.shape)
        with e.parallel(data.batch * data.blocks) as task:
            n, block = task // data.blocks, task % data.blocks
            registers = e.registers(4, 0.0 if average else _LOWEST)
            for run in even_runs(data.width, 4):
                with e.serial(data.height) as y, e.serial(run.count) as tile:
                    for i in range(run.size):
                        x = tile * run.size + run.start + i
                        value = e.load(source, data.index(n, block, y, x))
                        present = registers[i].get()
                        registers[i].set(present + value if average else T.max(present, value))
            values = [register.get() for register in registers]
            if average:
                total = (values[0] + values[1]) + (values[2] + values[3])
                result = total * e.splat(1.0 / pixels)
            else:
                result = T.max(T.max(values[0], values[1]), T.max(values[2], values[3]))
            e.store(target, out.index(n, block, 0, 0), result)
    return e.kernel()


TEMPLATES = {
    "MaxPool": Template(_form, _lower),
    "AveragePool": Template(_form, _lower),
    "GlobalAveragePool": Template(_form, _lower_global),
    "GlobalMaxPool": Template(_form, _lower_global),
    "ReduceMean": Template(_form_mean, _lower_global),
}
