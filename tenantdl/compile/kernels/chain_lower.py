"""Which convolutions of a plan become one chain (see `chain`), and its schedule.

A chain pays where the image in the middle does not stay in L2: then every byte of it costs the way
out and back. Where it stays, separate kernels are as fast, and their row tiles are longer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from tenantdl.compile.context import Context, Group
from tenantdl.compile.fusion import Planned, bind_program
from tenantdl.compile.graph import Node
from tenantdl.compile.kernels import conv
from tenantdl.compile.kernels.chain import chain
from tenantdl.compile.kernels.chain_spec import ChainSchedule, ChainSpec, Window
from tenantdl.compile.kernels.conv_schedule import step_cycles
from tenantdl.compile.kernels.layout import Packed, Planar
from tenantdl.compile.kernels.registry import Template
from tenantdl.compile.target import CpuTarget

_KERNEL_MAX = 7
# Of L2: an image larger than this does not stay there until it is read; ring and weights may fill.
MIDDLE_SHARE, _RING_SHARE = 0.5, 0.5
_ROWS = 4  # filtered block by block before the last convolution
_PIXELS_MAX = 28


@dataclass(slots=True)
class Links:
    """The convolutions of one chain, as they were planned."""

    first: Planned
    depthwise: Planned
    last: Planned | None = None

    @property
    def all(self) -> list[Planned]:
        """First to last."""
        return [self.first, self.depthwise, *([self.last] if self.last is not None else [])]


def merge_chains(context: Context, planned: list[Planned]) -> list[Planned]:
    """`planned` with every chain that pays as one entry in the place of its last convolution."""
    readers = context.graph.consumers()
    by_node = {id(entry.group.anchor): entry for entry in planned}
    replaced: dict[int, Planned | None] = {}
    for entry in planned:
        links = _links(context, entry, readers, by_node)
        if links is None or not _pays(context, links):
            continue
        # 1×1 → depthwise → 1×1 → depthwise …: what ends one chain cannot begin the next.
        if any(id(link) in replaced for link in links.all):
            continue
        *before, end = links.all
        covered = [node for link in links.all for node in link.group.covered]
        group = Group(end.group.anchor, end.group.output, end.group.tails, covered)
        template = Template(lambda _context, _node: "packed", _lowering(links))
        for link in before:
            replaced[id(link)] = None
        replaced[id(end)] = Planned(group, template, "packed", end.position)
    merged = [replaced.get(id(entry), entry) for entry in planned]
    return [entry for entry in merged if entry is not None]


def _links(
    context: Context, first: Planned, readers: dict[str, list[Node]], by_node: dict[int, Planned]
) -> Links | None:
    """The chain that begins with `first`, if there is one."""
    if not _is_first(context, first):
        return None
    depthwise = _only_reader(context, first, readers, by_node)
    if depthwise is None or not _is_depthwise(context, depthwise):
        return None
    if depthwise.group.output in context.sums:
        return Links(first, depthwise)
    last = _only_reader(context, depthwise, readers, by_node)
    fits = last is not None and conv.is_pointwise(context, last)
    return Links(first, depthwise, last if fits else None)


def _only_reader(
    context: Context, entry: Planned, readers: dict[str, list[Node]], by_node: dict[int, Planned]
) -> Planned | None:
    """The convolution that alone reads what `entry` writes."""
    value = entry.group.output
    nodes = readers.get(value, [])
    if value in context.graph.outputs or value in context.placements or len(nodes) != 1:
        return None
    found = by_node.get(id(nodes[0]))
    ours = found is not None and conv.is_convolution(context, found)
    return found if ours and nodes[0].inputs.count(value) == 1 else None


def _is_first(context: Context, entry: Planned) -> bool:
    if not conv.is_convolution(context, entry) or not _by_channel(context, entry):
        return False
    geometry = conv.Geometry(context, entry.group.anchor)
    value = entry.group.anchor.inputs[0]
    if conv.reads_planar(context, value, geometry):
        return geometry.dilation == (1, 1)
    return conv.is_pointwise(context, entry)


def _is_depthwise(context: Context, entry: Planned) -> bool:
    geometry = conv.Geometry(context, entry.group.anchor)
    fits = all(
        k <= _KERNEL_MAX and s <= k and p < k
        for k, s, p in zip(geometry.kernel, geometry.stride, geometry.pads, strict=True)
    )
    plain = geometry.depthwise and geometry.dilation == (1, 1)
    return fits and plain and _by_channel(context, entry)


def _by_channel(context: Context, entry: Planned) -> bool:
    """Whether the steps behind the convolution read constants only."""
    names = [a for tail in entry.group.tails for a in tail.args if isinstance(a, str) and a]
    return all(context.array(name) is not None for name in names)


def _pays(context: Context, links: Links) -> bool:
    """Whether the middle image is too large for L2, and the ring with the weights is not."""
    l2 = context.target.caches.l2_bytes
    spec = _spec(context, links)
    middle = spec.middle
    row = middle.width * middle.blocks * middle.lanes * 4
    weights = sum(context.type(link.group.anchor.inputs[1]).nbytes for link in links.all)
    ring = row * spec.depthwise.kernel[0] + _ROWS * row
    return row * middle.height > l2 * MIDDLE_SHARE and ring + weights < l2 * _RING_SHARE


def _spec(context: Context, links: Links) -> ChainSpec:
    """Sizes only: programs and the layouts of input and output are still missing."""
    first = conv.Geometry(context, links.first.group.anchor)
    depthwise = conv.Geometry(context, links.depthwise.group.anchor)
    value = links.first.group.anchor.inputs[0]
    data: Packed | Planar = context.layout_of(value)
    if conv.reads_planar(context, value, first):
        batch, channels, height, width = context.type(value).shape
        data = Planar(batch, channels, height, width)
    middle = context.layout_of(links.first.group.output)
    out = context.layout_of(links.all[-1].group.output)
    windows = [Window(g.kernel, g.stride, g.pads) for g in (first, depthwise)]
    return ChainSpec(data, middle, out, windows[0], windows[1])


def schedule_for(spec: ChainSpec, target: CpuTarget, cores: int) -> ChainSchedule:
    """Register tiles as large as fit; strips so that every core has a task."""
    pixels = min(_PIXELS_MAX, target.registers - 4)
    tasks = spec.out.batch * (1 if spec.last is not None else spec.middle.blocks)
    strips = 1 if tasks % cores == 0 or tasks >= 4 * cores else cores
    last = [
        (blocks, min((target.registers - 2 - blocks) // blocks, spec.out.width))
        for blocks in (1, 2, 3, 4, 6)
        if spec.out.blocks % blocks == 0
    ]
    blocks, last_pixels = min(
        (tile for tile in last if tile[1] > 0),
        key=lambda tile: step_cycles(tile[1], tile[0]) / (tile[0] * tile[1]),
    )
    strips = -(-spec.out.height // -(-spec.out.height // strips))
    rows = _ROWS if spec.last is not None else spec.out.height
    return ChainSchedule(pixels, pixels // 2, blocks, last_pixels, strips, rows)


def _lowering(links: Links) -> Callable[[Context, Group], None]:
    """The function that lowers one chain."""

    def lower(context: Context, group: Group) -> None:
        spec = _spec(context, links)
        source, data = _data(context, links, spec)
        programs, args = [], [source]
        for link in links.all:
            planar = link is links.first and isinstance(data, Planar)
            program, operands = bind_program(context, link.group, "packed")
            programs.append(program)
            args += [*conv.constants(context, link.group.anchor, planar=planar), *operands]
        out_name, out = context.new_packed(group.output)
        spec = replace(
            spec,
            data=data,
            out=out,
            first=replace(spec.first, program=programs[0]),
            depthwise=replace(spec.depthwise, program=programs[1]),
            last=programs[2] if links.last is not None else None,
            sums=group.output in context.sums,
        )
        schedule = schedule_for(spec, context.target, context.cores)
        results = [out_name]
        if spec.sums:
            results.append(context.new_sums(group.output, schedule.strips))
        flops = sum(conv.flops(context, link.group.anchor) for link in links.all)
        context.emit(
            group.name,
            "conv_chain",
            chain(spec, schedule),
            (*args, *results),
            n_outputs=len(results),
            flops=flops,
        )

    return lower


def _data(context: Context, links: Links, spec: ChainSpec) -> tuple[str, Packed | Planar]:
    value = links.first.group.anchor.inputs[0]
    return (
        (context.plain(value), spec.data)
        if isinstance(spec.data, Planar)
        else context.packed(value)
    )
