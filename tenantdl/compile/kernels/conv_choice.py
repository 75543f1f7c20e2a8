"""Which algorithm and which schedule a convolution gets: of a bundle with several buckets one for
all of them, where that costs little.

A convolution of several widths is one kernel (`families`) if its register tiles divide all of
these. So the first bucket that is lowered looks for the best schedule among those whose tiles
divide what the widths have in common, and the others take it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from tenantdl.compile.graph import Node
from tenantdl.compile.kernels.conv_schedule import even_schedule, footprint, ranked_schedules
from tenantdl.compile.kernels.conv_spec import ConvSchedule, ConvSpec
from tenantdl.compile.kernels.depthwise import depthwise_pixels
from tenantdl.compile.kernels.runs import divisor
from tenantdl.compile.kernels.winograd import WinogradSchedule
from tenantdl.compile.kernels.winograd_schedule import (
    ACCURATE_POINTS_MAX,
    algorithms,
    winograd_footprint,
)
from tenantdl.compile.kernels.winograd_transform import POINTS_MAX
from tenantdl.compile.schedules import Choice

if TYPE_CHECKING:
    from tenantdl.compile.context import Context
    from tenantdl.compile.kernels.conv import Geometry


def algorithm(
    context: Context, node: Node, geometry: Geometry
) -> tuple[ConvSpec, Choice[WinogradSchedule | None]]:
    """Winograd's schedule or None, decided from sizes alone, with the sizes as a spec."""
    spec = ConvSpec(
        context.layout_of(node.inputs[0]),
        context.layout_of(node.outputs[0]),
        geometry.kernel,
        geometry.stride,
        geometry.dilation,
        geometry.pads,
        geometry.groups,
    )
    common = context.schedules.common
    unit = _unit(context, spec)
    key = f"algorithm {unit or spec} on {context.cores}"

    def asked(schedule: WinogradSchedule | None) -> tuple[int, int] | None:
        return None if schedule is None else winograd_footprint(spec, schedule)

    if unit is not None and key in common:
        return spec, Choice(key, common[key], True, asked(common[key]))
    points_max = POINTS_MAX if context.schedules.winograd4 else ACCURATE_POINTS_MAX
    found = algorithms(spec, context.target, context.cores, points_max)
    if context.schedules.beyond:  # another way to run a plan: over the same weights, or directly
        known = context.schedules.packings
        own, *rest = (one for one in found if one is None or packing(node, one) in known)
        # The direct one first: with a fraction of the weights it differs most.
        found = [own, *sorted(rest, key=lambda one: one is not None)]
    choice = context.schedules.pick(key, found, asked)
    if unit is not None:
        choice = replace(choice, schedule=_even(unit, choice.schedule))
        common[key] = choice.schedule
    return spec, choice


def packing(node: Node, schedule: WinogradSchedule) -> tuple[object, ...]:
    """What packed weights depend on."""
    return (node.inputs[1], schedule.rows, schedule.columns, schedule.blocks)


def direct_schedule(context: Context, spec: ConvSpec) -> Choice[ConvSchedule]:
    """The schedule of a direct convolution."""
    target, cores, common = context.target, context.cores, context.schedules.common
    unit = _unit(context, spec)
    if unit is not None:
        key = f"conv2d {unit} on {cores}, gated {unit.gate is not None} {unit.own_weights}"
        if key not in common:
            common[key] = even_schedule(spec.simplified(), unit, target, cores)
        if common[key] is not None:
            return Choice(key, common[key], True, footprint(spec, common[key], target))
    found = ranked_schedules(spec, target, cores)
    key = f"conv2d {spec.simplified()} on {cores}"
    return context.schedules.pick(key, found, lambda s: footprint(spec, s, target))


def depthwise_tile(context: Context, spec: ConvSpec) -> int:
    """Pixels of a register tile of a depthwise convolution."""
    pixels, unit = depthwise_pixels(spec, context.target), _unit(context, spec)
    even = 0 if unit is None else divisor(unit.columns, pixels)
    return even if 2 * even > pixels else pixels


def _unit(context: Context, spec: ConvSpec) -> ConvSpec | None:
    """The part of the (simplified) convolution that it is a multiple of in all buckets."""
    grain, spec = context.schedules.grain, spec.simplified()
    widths = [spec.data.width * grain, spec.out.width * grain]
    if not grain or spec.phase or any(width.denominator > 1 for width in widths):
        return None
    data = replace(spec.data, width=int(widths[0]))
    return replace(spec, data=data, out=replace(spec.out, width=int(widths[1])))


def _even(unit: ConvSpec, schedule: WinogradSchedule | None) -> WinogradSchedule | None:
    """Winograd's schedule with register tiles that divide the tiles of `unit`, if any do."""
    if schedule is None or unit.columns % schedule.columns.m:
        return schedule
    rows, across = schedule.tile_counts(unit)
    tiles = across * (schedule.tile_rows or rows * unit.out.batch)
    even = divisor(tiles, schedule.tiles)
    if 2 * even <= schedule.tiles:
        return schedule
    return replace(schedule, tiles=even, panels=tiles // even)
