"""Whether Winograd beats the direct convolution here, and with which tiles: predicted in cycles."""

from __future__ import annotations

from tenantdl.compile.kernels.conv_schedule import choose, predicted_cycles, step_cycles
from tenantdl.compile.kernels.conv_spec import ConvSpec
from tenantdl.compile.kernels.layout import Border, Packed
from tenantdl.compile.kernels.runs import even_runs
from tenantdl.compile.kernels.winograd import WinogradSchedule, tile_counts
from tenantdl.compile.target import CpuTarget

CHANNELS_MIN = 32
SIDE_MIN = 6
# Cycles to transform one vector of one tile, in and out, loads and stores included.
_INPUT_CYCLES = {2: 36.0, 4: 130.0}
_OUTPUT_CYCLES = {2: 34.0, 4: 115.0}
# Streamed weights overlap with arithmetic up to this rate (bytes a cycle, one core).
_STREAM_BYTES_A_CYCLE = 4.5
# A prediction has to be this much better, for it costs accuracy and memory.
_MARGIN = 0.92


def select(
    spec: ConvSpec, target: CpuTarget, cores: int, m_max: int = 4
) -> WinogradSchedule | None:
    """The best Winograd schedule if it is predicted to beat the best direct one, else None.

    `m_max` bounds the tile's side (2 forbids F(4×4)). Depends only on sizes, not on borders.
    """
    if not _applicable(spec):
        return None
    direct = predicted_cycles(spec, choose(spec, target, cores), target, cores)
    best, limit = None, direct * _MARGIN
    for m in (2, 4):
        for candidate in _candidates(spec, m, target) if m <= m_max else ():
            cycles = winograd_cycles(spec, candidate, target, cores)
            if cycles < limit:
                best, limit = candidate, cycles
    return best


def reach(spec: ConvSpec, m: int) -> Border:
    """The border that the tiles read, past the image and its padding."""
    rows, columns = tile_counts(spec, m)
    top, left = spec.pads
    return Border(
        top,
        left,
        max(0, rows * m + 2 - top - spec.data.height),
        max(0, columns * m + 2 - left - spec.data.width),
    )


def _applicable(spec: ConvSpec) -> bool:
    return (
        isinstance(spec.data, Packed)
        and spec.kernel == (3, 3)
        and spec.stride == spec.dilation == (1, 1)
        and spec.groups == 1
        and spec.phase is None
        and min(spec.data.channels, spec.out.channels) >= CHANNELS_MIN
        and min(spec.out.height, spec.out.width) >= SIDE_MIN
    )


def _candidates(spec: ConvSpec, m: int, target: CpuTarget) -> list[WinogradSchedule]:
    rows, columns = tile_counts(spec, m)
    found = []
    for blocks in (2, 1, 3):
        if blocks > spec.out.blocks:
            continue
        tiles = (target.registers - 2 - blocks) // blocks
        if tiles < 1:
            continue
        row_choices = {0, *(r for r in (1, 2, 3, 4, 7) if r < rows and r * columns >= 8)}
        found += [WinogradSchedule(m, blocks, tiles, r) for r in sorted(row_choices)]
    return found


def winograd_cycles(
    spec: ConvSpec, schedule: WinogradSchedule, target: CpuTarget, cores: int
) -> float:
    """Cycles of the busiest of `cores` cores."""
    m, lanes = schedule.m, spec.lanes
    points = (m + 2) ** 2
    rows, columns = tile_counts(spec, m)
    batch = spec.out.batch
    inputs, outputs = spec.data.blocks, spec.out.blocks  # type: ignore[union-attr]
    groups = -(-outputs // schedule.blocks)
    row_groups = -(-rows // schedule.tile_rows) if schedule.tile_rows else 1
    tiles = (schedule.tile_rows * columns) if schedule.tile_rows else batch * rows * columns
    panels = even_runs(tiles, schedule.tiles)
    step = sum(run.count * step_cycles(run.size, schedule.blocks) * 1.06 for run in panels)
    multiply = points * groups * inputs * lanes * step
    weights = groups * schedule.blocks * lanes * inputs * lanes * points * 4
    # V of one point is read again by every group; beyond L2 that is slow.
    v_bytes = inputs * lanes * points * (tiles + 1) * 4
    product_bytes = schedule.blocks * lanes * points * (tiles + 1) * 4
    spill = v_bytes + product_bytes > target.caches.l2_bytes * 0.75
    again = v_bytes * (groups - 1) / (10.0 if spill else 48.0)
    stream = weights if weights > target.caches.l2_bytes * 0.5 else weights / max(row_groups, 1)
    multiply = max(multiply + again * 0.5, stream / _STREAM_BYTES_A_CYCLE)
    transform = batch * rows * columns * inputs * _INPUT_CYCLES[m]
    finish = batch * rows * columns * outputs * _OUTPUT_CYCLES[m]
    if schedule.tile_rows:
        tasks = batch * row_groups
        return -(-tasks // cores) * (multiply + (transform + finish) / tasks)
    share_in = -(-(batch * inputs) // cores) / (batch * inputs)
    share_out = -(-groups // cores) / groups
    launch = 6000.0 if cores > 1 else 0.0
    return transform * share_in + (multiply + finish) * share_out + launch
