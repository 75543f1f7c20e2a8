"""Squeeze and excite behind a depthwise convolution, without a tensor of the image's size.

    image ─▶ mean of each channel ─▶ 1×1 ─▶ activation ─▶ 1×1 ─▶ activation = gate
    image · gate ─▶ 1×1 convolution

The convolution that writes the image sums its channels on the way; one operator turns the sums into
the gate; and the convolution that reads the product takes the gate into its weights (`gate`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from tenantdl.compile.context import Context, Group
from tenantdl.compile.fusion import Planned, bind_program
from tenantdl.compile.graph import Node
from tenantdl.compile.kernels import conv, pool
from tenantdl.compile.kernels.chain_spec import channel_runs
from tenantdl.compile.kernels.conv_spec import operand_loader, operand_shape
from tenantdl.compile.kernels.emit import Emitter, Index, Register
from tenantdl.compile.kernels.epilogue import Program
from tenantdl.compile.kernels.gate import lower_gated
from tenantdl.compile.kernels.layout import Packed
from tenantdl.compile.kernels.registry import Template
from tenantdl.compile.kernels.runs import even_runs
from tenantdl.compile.kernels.vmath import VectorMath
from tenantdl.compile.operator import Kernel

_TILE_BLOCKS = 6


@dataclass(frozen=True, slots=True)
class SqueezeSpec:
    """`strips` partial sums a channel; `image` and `hidden`: the channels before and between the
    two layers, `gate` behind them, all of one pixel; `programs` run behind the layers."""

    strips: int
    pixels: int
    image: Packed
    hidden: Packed
    gate: Packed
    programs: tuple[Program, Program]


def squeeze_kernel(spec: SqueezeSpec) -> Kernel:
    """Parameters: sums [N][strips][blocks][V]; weights, bias, operands of either layer; gate."""
    digest = hashlib.sha256(repr(spec).encode()).hexdigest()[:12]
    with Emitter(f"squeeze_{digest}", spec.gate.lanes) as e:
        _Squeeze(e, spec).emit()
    return e.kernel()


class _Squeeze:
    def __init__(self, e: Emitter, spec: SqueezeSpec) -> None:
        self.e, self.spec = e, spec
        image, lanes = spec.image, e.lanes
        self.sums = e.param("sums", (image.batch, spec.strips, image.blocks, lanes))
        self.layers = []
        for i, (data, out) in enumerate(((image, spec.hidden), (spec.hidden, spec.gate))):
            weights = e.param(f"weights{i}", (out.blocks, data.blocks, 1, 1, lanes, lanes))
            bias = e.param(f"bias{i}", (out.blocks, lanes))
            operands = [
                e.param(f"operand{i}_{j}", operand_shape(operand.layout, operand.access, out))
                for j, operand in enumerate(spec.programs[i].parameters)
            ]
            self.layers.append((data, out, weights, bias, operands))
        self.gate = e.param("gate", spec.gate.shape)

    def emit(self) -> None:
        """Parallel over images."""
        e, image = self.e, self.spec.image
        with e.parallel(image.batch) as n:
            means = e.scratch((image.blocks, e.lanes))
            hidden = e.scratch((self.spec.hidden.blocks, e.lanes))
            with e.serial(image.blocks) as b:
                (total,) = e.registers(1)
                with e.serial(self.spec.strips) as strip:
                    total.add(e.load(self.sums, (n, strip, b, 0)))
                e.store(means, (b, 0), total.get() * e.splat(1.0 / self.spec.pixels))
            self._layer(0, n, means, lambda b: (hidden, (b, 0)))
            self._layer(1, n, hidden, lambda b: (self.gate, self.spec.gate.index(n, b, 0, 0)))

    def _layer(
        self, i: int, n: Index, source: Any, place: Callable[[Index], tuple[Any, tuple[Any, ...]]]
    ) -> None:
        """A dense layer; weights stream past once."""
        e, program = self.e, self.spec.programs[i]
        data, out, weights, bias, operands = self.layers[i]
        math = VectorMath(e)
        for run in even_runs(out.blocks, _TILE_BLOCKS):
            with e.serial(run.count) as tile:
                block = tile * run.size + run.start
                made = [Register(e.lanes) for _ in range(run.size)]
                for j, register in enumerate(made):
                    register.set(e.load(bias, (block + j, 0)))
                for c0, count, lanes in channel_runs(data):
                    with e.serial(count) as dc, e.serial(lanes) as lane:
                        factor = e.bind(e.splat(source[c0 + dc, lane]))
                        for j, register in enumerate(made):
                            line = e.load(weights, (block + j, c0 + dc, 0, 0, lane, 0))
                            register.add(factor * line)
                for j, register in enumerate(made):
                    load = operand_loader(e, program, operands, n, block + j, 0, 0)
                    buffer, index = place(block + j)
                    e.store(buffer, index, program.apply(math, register.get(), load))


@dataclass(slots=True)
class _Parts:
    """The plan's entries of one squeeze-and-excite."""

    pool: Planned
    layers: tuple[Planned, Planned]
    product: Planned
    last: Planned
    image: str


def merge_squeezes(context: Context, planned: list[Planned]) -> list[Planned]:
    """`planned` with every squeeze-and-excite as one entry, and the convolution behind as another;
    `context.sums` tells the one before."""
    readers = context.graph.consumers()
    writers = {entry.group.output: entry for entry in planned}
    by_node = {id(entry.group.anchor): entry for entry in planned}
    replaced: dict[int, Planned | None] = {}
    for entry in planned:
        parts = _parts(context, entry, readers, writers, by_node)
        if parts is None:
            continue
        first, second = parts.layers
        covered = [node for link in (parts.pool, first, second) for node in link.group.covered]
        group = Group(first.group.anchor, second.group.output, [], covered)
        template = Template(lambda _context, _node: "packed", _lowering(parts))
        for part in (parts.pool, first, parts.product):
            replaced[id(part)] = None
        replaced[id(second)] = Planned(group, template, "packed", second.position)
        context.sums[parts.image] = None
        gated = Template(lambda _context, _node: "packed", _lowering_last(parts))
        replaced[id(parts.last)] = replace(parts.last, template=gated)
    merged = [replaced.get(id(entry), entry) for entry in planned]
    return [entry for entry in merged if entry is not None]


def _parts(
    context: Context,
    entry: Planned,
    readers: dict[str, list[Node]],
    writers: dict[str, Planned],
    by_node: dict[int, Planned],
) -> _Parts | None:
    """The squeeze-and-excite that begins with the pooling `entry`, if there is one."""
    if entry.template is None or not pool.is_global_average(entry.group.anchor, entry.template):
        return None
    image = entry.group.anchor.inputs[0]
    source = writers.get(image)
    if source is None or not _sums_channels(context, source) or image in context.graph.outputs:
        return None

    def only_reader(value: str) -> Planned | None:
        nodes = readers.get(value, [])
        if len(nodes) != 1 or value in context.graph.outputs or value in context.placements:
            return None
        return by_node.get(id(nodes[0]))

    first = only_reader(entry.group.output)
    if first is None or not conv.is_pointwise(context, first):
        return None
    second = only_reader(first.group.output)
    if second is None or not conv.is_pointwise(context, second):
        return None
    if any(conv.Geometry(context, layer.group.anchor).border for layer in (first, second)):
        return None
    product = only_reader(second.group.output)
    if product is None or product.group.anchor.op != "Mul" or product.group.tails:
        return None
    if sorted(product.group.anchor.inputs) != sorted((image, second.group.output)):
        return None
    if {id(node) for node in readers[image]} != {id(entry.group.anchor), id(product.group.anchor)}:
        return None
    last = only_reader(product.group.output)
    if last is None or not conv.is_pointwise(context, last):
        return None
    return _Parts(entry, (first, second), product, last, image)


def _sums_channels(context: Context, entry: Planned) -> bool:
    """Whether `entry` is a convolution that can add up its output's channels."""
    ours = conv.is_convolution(context, entry)
    return ours and conv.Geometry(context, entry.group.anchor).depthwise


def _lowering_last(parts: _Parts) -> Callable[[Context, Group], None]:
    gate = parts.layers[1].group.output
    return lambda context, group: lower_gated(context, group, parts.image, gate)


def _lowering(parts: _Parts) -> Callable[[Context, Group], None]:
    """The function that lowers one squeeze-and-excite."""

    def lower(context: Context, group: Group) -> None:
        kind = context.type(parts.image)
        buffer = context.sums[parts.image]
        assert buffer is not None
        strips = context.program.buffers[buffer].shape[1]
        programs, args = [], [buffer]
        for layer in parts.layers:
            program, operands = bind_program(context, layer.group, "packed")
            programs.append(program)
            args += [*conv.constants(context, layer.group.anchor), *operands]
        name, gate = context.new_packed(group.output)
        pixels = kind.size // (kind.shape[0] * kind.shape[1])
        spec = SqueezeSpec(
            strips,
            pixels,
            context.layout_of(parts.pool.group.output),
            context.layout_of(parts.layers[0].group.output),
            gate,
            (programs[0], programs[1]),
        )
        flops = sum(conv.flops(context, layer.group.anchor) for layer in parts.layers)
        context.emit(group.name, "squeeze", squeeze_kernel(spec), (*args, name), flops=flops)

    return lower
