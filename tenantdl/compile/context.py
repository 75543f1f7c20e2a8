"""What templates work with while a graph is lowered: values in, buffers and operators out.

A value of the graph has a plain buffer (row-major, ONNX shape), a packed one, or both: whoever asks
for the form that does not exist yet gets a conversion inserted. Producers ask where to write.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from blake3 import blake3

from tenantdl.compile.graph import Array, Graph, Node, TensorType
from tenantdl.compile.kernels.convert import pack_kernel, pad_kernel, unpack_kernel
from tenantdl.compile.kernels.layout import NO_BORDER, Border, Packed, Planar
from tenantdl.compile.operator import Buffer, Kernel, Lowered, Operator, Program, Wide
from tenantdl.compile.schedules import Choice, Packing, Schedules
from tenantdl.compile.target import CpuTarget

Form = Literal["packed", "plain"]
ElementOperand = str | float


@dataclass(frozen=True, slots=True)
class Tail:
    """An elementwise node fused behind an anchor; arguments are value names, the chain's running
    value is `""`, numbers are compiled in."""

    op: str
    args: tuple[ElementOperand, ...]
    attrs: tuple[tuple[str, object], ...] = ()


@dataclass(slots=True)
class Group:
    """An anchor node, the elementwise nodes fused behind it, and the value that results."""

    anchor: Node
    output: str
    tails: list[Tail] = field(default_factory=list)
    covered: list[Node] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Names of the covered nodes, for people."""
        return "+".join(dict.fromkeys(node.name or node.op for node in self.covered))


class Context:
    """State of one lowering. `forms[value]`: the form its producer writes; `borders`: what its
    readers need around it; `placements`: its concatenation and first block there; `views`: the
    packed value that it is the same memory as; `sums`: the buffer of channel sums that its producer
    writes as well (None before it is lowered)."""

    def __init__(
        self, graph: Graph, target: CpuTarget, cores: int, schedules: Schedules | None = None
    ) -> None:
        self.graph = graph
        self.schedules = schedules or Schedules()
        self.target = target
        self.cores = cores
        self.forms: dict[str, Form] = {}
        self.borders: dict[str, Border] = {}
        self.placements: dict[str, tuple[str, int]] = {}
        self.views: dict[str, str] = {}
        self.sums: dict[str, str | None] = {}
        self.program = Program([], {}, {}, list(graph.inputs), list(graph.outputs))
        self._plain: dict[str, str] = {}
        self._packed: dict[str, tuple[str, Packed]] = {}
        self._deferred: dict[str, Callable[[bool], bool]] = {}
        self._temporaries = 0
        for name in graph.inputs:
            self._plain[name] = self.declare(name, graph.types[name])

    # reading

    def type(self, value: str) -> TensorType:
        """Logical type of a value."""
        return self.graph.types[value]

    def array(self, value: str) -> Array | None:
        """The value's constant array, or None."""
        return self.graph.constants.get(value)

    def plain(self, value: str) -> str:
        """Buffer with the row-major value; unpacked on demand, constants included."""
        if value not in self._plain:
            if value in self.graph.constants:
                self._plain[value] = self.constant(self.graph.constants[value])
            elif value not in self._packed and value in self._deferred:
                self._deferred[value](False)
            else:
                name, layout = self._packed[value]
                if _same_bytes(layout):
                    self.alias_plain(value, name)
                    return value
                self._plain[value] = self.declare(value, self.type(value))
                kernel = unpack_kernel(layout, self.type(value).shape)
                self.emit(f"unpack {value}", "layout", kernel, (name, self._plain[value]))
        return self._plain[value]

    def packed(self, value: str) -> tuple[str, Packed]:
        """Buffer and layout of the packed value; packed on demand."""
        if value not in self._packed and value not in self._plain and value in self._deferred:
            self._deferred[value](True)
        if value not in self._packed:
            source = self.plain(value)
            name, layout = self.new_packed(value)
            if _same_bytes(layout):
                self.program.buffers[name] = Buffer(layout.shape, "float32", base=source)
                return name, layout
            kernel = pack_kernel(layout, self.type(value).shape)
            self.emit(f"pack {value}", "layout", kernel, (source, name))
        return self._packed[value]

    # writing

    def new_plain(self, value: str) -> str:
        """Declare the row-major buffer that the caller will write `value` to."""
        self._plain[value] = self.declare(value, self.type(value))
        return self._plain[value]

    def defer(self, value: str, write: Callable[[bool], bool]) -> None:
        """`value` is written when it is first read: `write(packed)` does so and says whether it
        could. Row-major it always can."""
        self._deferred[value] = write

    def alias_plain(self, value: str, source: str) -> None:
        """`value` is the row-major buffer `source` seen with another shape."""
        kind = self.type(value)
        self.program.buffers[value] = Buffer(kind.shape, kind.dtype, base=source)
        self._plain[value] = value

    def alias_packed(self, value: str, name: str, layout: Packed) -> None:
        """`value` is (part of) the packed buffer `name`."""
        self._packed[value] = (name, layout)

    def new_packed(self, value: str) -> tuple[str, Packed]:
        """Declare where packed `value` will be written: its own buffer, or its place in the
        concatenation that it is part of."""
        return self.packed_root(value)

    def packed_root(self, value: str) -> tuple[str, Packed]:
        """The buffer that `value` is or will be in; concatenations nest."""
        if value not in self._packed:
            if value in self.placements:
                parent, block = self.placements[value]
                name, whole = self.packed_root(parent)
                total = whole.shape[1]
                layout = self.layout_of(value, whole.border, whole.first_block + block, total)
                self._packed[value] = (name, layout)
            else:
                self._declare_packed(value)
        return self._packed[value]

    def layout_of(
        self, value: str, border: Border = NO_BORDER, first_block: int = 0, total: int = 0
    ) -> Packed:
        """Packed layout of a 3-D or 4-D value; a missing height is 1."""
        shape = self.type(value).shape
        batch, channels, *image = shape
        height, width = (1, image[0]) if len(image) == 1 else image
        return Packed(batch, channels, height, width, self.target.lanes, border, first_block, total)

    def planar(self, value: str, layout: Planar) -> str:
        """Buffer with the row-major image inside a border of zeros."""
        key = f"{value}#planar{tuple(layout.shape)}"
        if key not in self.program.buffers:
            self.program.buffers[key] = Buffer(
                layout.shape, "float32", zeros=f"planar {layout.border}"
            )
            kernel = pad_kernel(layout, self.type(value).shape)
            self.emit(f"pad {value}", "layout", kernel, (self.plain(value), key))
        return key

    def scratch(self, shape: tuple[int, ...], dtype: str = "float32") -> str:
        """A temporary buffer."""
        self._temporaries += 1
        return self.declare(f"%{self._temporaries}", TensorType(shape, dtype))

    def new_sums(self, value: str, strips: int = 1) -> str:
        """Declare where the channel sums of packed `value` will be written, in `strips` parts."""
        layout = self.layout_of(value)
        name = self.scratch((layout.batch, strips, layout.blocks, layout.lanes))
        self.sums[value] = name
        return name

    def constant(self, array: Array) -> str:
        """Buffer with a constant; equal arrays share one."""
        array = np.ascontiguousarray(array)
        digest = blake3(array.reshape(-1).view(np.uint8).data)
        digest.update(repr((array.shape, array.dtype.str)).encode())
        name = f"@{digest.hexdigest(length=12)}"
        if name not in self.program.constants:
            self.program.constants[name] = array
            self.program.buffers[name] = Buffer(array.shape, array.dtype.name)
        return name

    def weights(self, source: Array, key: tuple[object, ...], pack: Callable[[], Array]) -> str:
        """Buffer with weights packed from `source` in the way that `key` names: packed, and told
        from others by their bytes, once for all lowerings of a graph."""
        known = self.schedules.packings
        if key not in known or known[key].source is not source:
            array = np.ascontiguousarray(pack())
            known[key] = Packing(source, self.constant(array), array)
        name, array = known[key].name, known[key].packed
        if name not in self.program.constants:
            self.program.constants[name] = array
            self.program.buffers[name] = Buffer(array.shape, array.dtype.name)
        return name

    def emit(
        self,
        name: str,
        kind: str,
        kernel: Kernel,
        args: tuple[str, ...],
        *,
        n_outputs: int = 1,
        flops: int = 0,
        choices: tuple[Choice[Any], ...] = (),
        wide: Wide | None = None,
    ) -> None:
        """Append an operator; `args` are buffers in the order of the kernel's parameters,
        `choices` what was picked for it."""
        operator = Operator(name, kind, kernel, args, n_outputs, flops, choices, wide)
        self.program.operators.append(operator)

    def adopt(self, lowered: Lowered) -> None:
        """Take over operators and buffers that the generic schedule made; its results are plain."""
        self.program.buffers.update(lowered.buffers)
        self.program.constants.update(lowered.constants)
        for name, array in lowered.constants.items():
            self.program.buffers[name] = Buffer(array.shape, array.dtype.name)
        for operator in lowered.operators:
            args = tuple(
                name if name in lowered.buffers or name in lowered.constants else self.plain(name)
                for name in operator.args
            )
            self.program.operators.append(replace(operator, args=args))
        for value in lowered.buffers:
            if value in self.graph.types:
                self._plain[value] = value

    def declare(self, name: str, kind: TensorType) -> str:
        """A row-major buffer of its own."""
        self.program.buffers[name] = Buffer(kind.shape, kind.dtype)
        return name

    def _declare_packed(self, value: str) -> tuple[str, Packed]:
        layout = self.layout_of(value, self.borders.get(value, NO_BORDER))
        name = f"{value}#packed"
        self.program.buffers[name] = Buffer(layout.shape, "float32", zeros=str(layout.border or ""))
        self._packed[value] = (name, layout)
        return self._packed[value]


def _same_bytes(layout: Packed) -> bool:
    """Packed and row-major order agree: one pixel, whole blocks, a buffer of its own."""
    one_pixel = layout.height * layout.width == 1 and not layout.border
    return one_pixel and layout.channels % layout.lanes == 0 and layout.total_blocks == 0
