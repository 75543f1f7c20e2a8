"""Whether Winograd beats the direct convolution here, and with which tiles: predicted in cycles."""

from __future__ import annotations

from tenantdl.compile.kernels.conv_schedule import choose, predicted_cycles, step_cycles
from tenantdl.compile.kernels.conv_spec import ConvSpec
from tenantdl.compile.kernels.layout import Border, Packed
from tenantdl.compile.kernels.runs import even_runs
from tenantdl.compile.kernels.winograd import WinogradSchedule
from tenantdl.compile.kernels.winograd_transform import POINTS_MAX, Transform
from tenantdl.compile.schedules import ranked
from tenantdl.compile.target import CpuTarget

# Taps of a kernel's side → output pixels of a tile's side. Eight points along both axes would cost
# too much accuracy, so the larger ones are for kernels of one row or column.
_SIDES = {1: (1,), 2: (2, 3, 4), 3: (2, 4), 5: (2,), 7: ()}
_LINES = {1: (1,), 2: (2, 3, 4, 6), 3: (2, 4, 6), 5: (2, 3, 4), 7: (2,)}
ACCURATE_POINTS_MAX = 4  # of an axis: F(2, 3)'s; errors stay those of a direct convolution
_CHANNELS_MIN = 8
# Cycles of one vector's load or store, and of one operation, in the transforms.
_MOVE_CYCLES = 0.6
_OPERATION_CYCLES = 0.55
# Streamed weights overlap with arithmetic up to this rate (bytes a cycle, one core).
_STREAM_BYTES_A_CYCLE = 3.0
# A prediction has to be this much better, for it costs accuracy and memory.
_MARGIN = 0.92
_HOPELESS = 1.2  # more than this times the direct one's cycles is not worth a measurement


def algorithms(
    spec: ConvSpec, target: CpuTarget, cores: int, points_max: int = POINTS_MAX
) -> list[WinogradSchedule | None]:
    """Winograd schedules and, as None, the direct convolution, by predicted time.

    `points_max` bounds the points of an axis (`ACCURATE_POINTS_MAX` forbids F(4×4, 3×3), which
    needs 6). Depends only on sizes, not on borders.
    """
    if not _applicable(spec):
        return [None]
    direct = predicted_cycles(spec, choose(spec, target, cores), target, cores)
    cycles: dict[WinogradSchedule | None, float] = {None: direct * _MARGIN}
    for rows, columns in _transforms(spec, points_max):
        for candidate in _candidates(spec, rows, columns, target):
            predicted = winograd_cycles(spec, candidate, target, cores)
            if predicted < direct * _HOPELESS:
                cycles[candidate] = predicted
    return ranked(cycles, cycles.__getitem__, lambda c: c and (c.rows, c.columns, c.blocks))


def reach(spec: ConvSpec, schedule: WinogradSchedule) -> Border:
    """The border that the tiles read, past the image and its padding."""
    rows, columns = schedule.tile_counts(spec)
    top, left = spec.pads
    return Border(
        top,
        left,
        max(0, rows * schedule.rows.m + schedule.rows.r - 1 - top - spec.data.height),
        max(0, columns * schedule.columns.m + schedule.columns.r - 1 - left - spec.data.width),
    )


def _applicable(spec: ConvSpec) -> bool:
    return (
        isinstance(spec.data, Packed)
        and spec.kernel != (1, 1)
        and spec.stride == spec.dilation == (1, 1)
        and spec.groups == 1
        and spec.phase is None
        and min(spec.data.channels, spec.out.channels) >= _CHANNELS_MIN
    )


def _transforms(spec: ConvSpec, points_max: int) -> list[tuple[Transform, Transform]]:
    """Transforms of rows and columns that are accurate enough: equal tiles on square kernels."""
    kh, kw = spec.kernel
    sides = _SIDES if min(kh, kw) > 1 else _LINES
    found = [
        (Transform(mh, kh), Transform(mw, kw))
        for mh in sides.get(kh, ())
        for mw in sides.get(kw, ())
        if kh != kw or mh == mw
    ]
    return [pair for pair in found if max(axis.points for axis in pair) <= points_max]


def _candidates(
    spec: ConvSpec, rows: Transform, columns: Transform, target: CpuTarget
) -> list[WinogradSchedule]:
    found = []
    for blocks in (2, 1, 3):
        if blocks > spec.out.blocks:
            continue
        tiles = (target.registers - 2 - blocks) // blocks
        if tiles < 1:
            continue
        down, across = WinogradSchedule(rows, columns, blocks, tiles, 0).tile_counts(spec)
        choices = {0, *(r for r in (1, 2, 3, 4, 7, 14, 28) if r < down and r * across >= 8)}
        found += [WinogradSchedule(rows, columns, blocks, tiles, r) for r in sorted(choices)]
    return found


def winograd_cycles(
    spec: ConvSpec, schedule: WinogradSchedule, target: CpuTarget, cores: int
) -> float:
    """Cycles of the busiest of `cores` cores."""
    lanes, points = spec.lanes, schedule.points
    rows, columns = schedule.tile_counts(spec)
    batch = spec.out.batch
    inputs, outputs = spec.data.blocks, spec.out.blocks  # type: ignore[union-attr]
    groups = -(-outputs // schedule.blocks)
    row_groups = -(-rows // schedule.tile_rows) if schedule.tile_rows else 1
    tiles = (schedule.tile_rows * columns) if schedule.tile_rows else batch * rows * columns
    panels = even_runs(tiles, schedule.tiles)
    step = sum(run.count * step_cycles(run.size, schedule.blocks) * 1.06 for run in panels)
    multiply = points * groups * spec.data.channels * step
    weights = groups * schedule.blocks * lanes * inputs * lanes * points * 4
    # V of one point is read again by every group; beyond L2 that is slow.
    v_bytes = inputs * lanes * points * (tiles + 1) * 4
    product_bytes = schedule.blocks * lanes * points * (tiles + 1) * 4
    spill = v_bytes + product_bytes > target.caches.l2_bytes * 0.75
    again = v_bytes * (groups - 1) / (10.0 if spill else 48.0)
    stream = weights if weights > target.caches.l2_bytes * 0.5 else weights / max(row_groups, 1)
    multiply = max(multiply + again * 0.5, stream / _STREAM_BYTES_A_CYCLE)
    into, out_of = _transform_cycles(schedule)
    transform = batch * rows * columns * inputs * into
    finish = batch * rows * columns * outputs * out_of
    if schedule.tile_rows:
        tasks = batch * row_groups
        return -(-tasks // cores) * (multiply + (transform + finish) / tasks)
    share_in = -(-(batch * inputs) // cores) / (batch * inputs)
    share_out = -(-groups // cores) / groups
    launch = 6000.0 if cores > 1 else 0.0
    return transform * share_in + (multiply + finish) * share_out + launch


def winograd_footprint(spec: ConvSpec, schedule: WinogradSchedule) -> tuple[int, int]:
    """Bytes that a core comes back to: transformed tiles and products of one group. Bytes from
    beyond its caches: transformed weights for every group of rows, data and results once."""
    rows, columns = schedule.tile_counts(spec)
    tiles = schedule.tile_rows * columns if schedule.tile_rows else rows * columns
    groups = -(-rows // schedule.tile_rows) if schedule.tile_rows else 1
    a_tile = 4 * spec.lanes * schedule.points
    inputs, outputs = spec.data.blocks, spec.out.blocks  # type: ignore[union-attr]
    weights = a_tile * spec.lanes * inputs * outputs
    pixels = spec.data.height * spec.data.width * inputs + spec.rows * spec.columns * outputs
    data = 4 * spec.out.batch * spec.lanes * pixels
    return a_tile * tiles * (inputs + schedule.blocks), data + weights * groups


def _transform_cycles(schedule: WinogradSchedule) -> tuple[float, float]:
    """Cycles to transform one vector of one tile, in and out, epilogue included."""
    down, across, points = schedule.rows, schedule.columns, schedule.points
    pixels = down.m * across.m
    into = across.points * down.input_operations + down.points * across.input_operations
    out = across.points * down.output_operations + down.m * across.output_operations
    return (
        2 * points * _MOVE_CYCLES + into * _OPERATION_CYCLES,
        (points + pixels) * _MOVE_CYCLES + (out + 3 * pixels) * _OPERATION_CYCLES,
    )
