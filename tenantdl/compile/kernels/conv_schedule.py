"""Which register tile and loop order a direct convolution gets: a small model of the machine.

Cycles of a register tile are the larger of its multiply-adds and its loads; bytes that come from
beyond L1 are charged at the rates of L2 and L3. The model only has to rank a few candidates.
"""

from __future__ import annotations

from dataclasses import replace

from tenantdl.compile.kernels.conv_spec import ConvSchedule, ConvSpec, is_plane
from tenantdl.compile.kernels.layout import Packed
from tenantdl.compile.kernels.runs import even_runs
from tenantdl.compile.target import CpuTarget

# Bytes a cycle from each level, one core; what streams overlaps with arithmetic only in part.
_L2_BYTES_A_CYCLE = 40.0
_L3_BYTES_A_CYCLE = 5.0
_FMA_LATENCY = 4
_LOAD_PENALTY = 0.8


def choose(spec: ConvSpec, target: CpuTarget, cores: int) -> ConvSchedule:
    """The candidate with the least predicted time on `cores` cores."""
    spec = spec.simplified()
    best = min(candidates(spec, target), key=lambda c: predicted_cycles(spec, c, target, cores))
    return _with_prefetch(spec, best, target)


def _with_prefetch(spec: ConvSpec, schedule: ConvSchedule, target: CpuTarget) -> ConvSchedule:
    """Weights are prefetched where each is read by one group only. Data is, where it lies beyond
    L2 and a kernel of one row leaves no reuse to hide behind, and beyond L1 for other kernels: a
    tile touches many rows, each for too short a run for the hardware to see where it goes."""
    packed = isinstance(spec.data, Packed)
    height = 1 if is_plane(spec) else spec.rows
    nbytes = 4 * spec.data.batch * spec.data.channels * spec.data.height * spec.data.width
    streams = nbytes > target.caches.l2_bytes * 0.3 and spec.kernel == (1, 1)
    streams |= nbytes > target.caches.l1d_bytes and spec.kernel[0] > 1
    return replace(
        schedule,
        prefetch_weights=packed and schedule.row_block >= height,
        prefetch_data=packed and streams and not is_plane(spec),
    )


def candidates(spec: ConvSpec, target: CpuTarget) -> list[ConvSchedule]:
    """Register tiles that fit the registers × loop orders, in a fixed order."""
    height = 1 if is_plane(spec) else spec.rows
    row_blocks = sorted({1, 2, 4, 8, 14, -(-height // 2), height} & set(range(1, height + 1)))
    found = []
    for blocks in (2, 1, 3, 4, 6, 8, 12):
        if blocks > spec.out.blocks:
            continue
        pixels_max = (target.registers - 2 - blocks) // blocks
        if pixels_max < 1:
            continue
        for rows in row_blocks:
            found.append(ConvSchedule(blocks, min(pixels_max, 28), rows))
    return found


def predicted_cycles(
    spec: ConvSpec, schedule: ConvSchedule, target: CpuTarget, cores: int
) -> float:
    """Cycles of the busiest of `cores` cores."""
    out = spec.out
    plane = is_plane(spec)
    height = 1 if plane else spec.rows
    width = spec.rows * spec.columns if plane else spec.columns
    channel_tasks = -(-out.blocks // schedule.blocks)
    row_blocks = -(-height // schedule.row_block)
    tasks = out.batch * row_blocks * channel_tasks
    share = -(-tasks // cores) / tasks

    whole, rest = divmod(out.blocks, schedule.blocks)
    arithmetic = 0.0
    for blocks, count in ((schedule.blocks, whole), (rest, 1 if rest else 0)):
        for run in even_runs(width, schedule.pixels) if count else ():
            tile = spec.steps * step_cycles(run.size, blocks) + run.size * blocks * 3 + 20
            arithmetic += count * run.count * tile * height * out.batch
    return (arithmetic + _traffic_cycles(spec, schedule, target, row_blocks)) * share


def step_cycles(pixels: int, blocks: int) -> float:
    """Cycles of one reduction step: two multiply-adds a cycle, slower the more loads each needs (a
    scalar a pixel, a vector a block), and never faster than a chain of dependent ones."""
    products = pixels * blocks
    loads = (pixels + blocks) / products
    return max(products / 2 * (1 + _LOAD_PENALTY * max(0.0, loads - 0.55)), float(_FMA_LATENCY))


def _traffic_cycles(
    spec: ConvSpec, schedule: ConvSchedule, target: CpuTarget, row_blocks: int
) -> float:
    """Cycles for bytes that tiles read from beyond L1 under this loop order."""
    out, lanes = spec.out, spec.lanes
    weights = out.blocks * lanes * spec.steps * 4
    data = 4
    for extent in spec.data.shape[1:]:
        data *= extent
    group = schedule.blocks * lanes * spec.steps * 4
    passes = -(-out.blocks // schedule.blocks)
    block_data = data / row_blocks
    # Every group of output channels reads the rows of its block again, from where they still are.
    data_reads = [(data, None), (data * (passes - 1), block_data)]
    # Every block of rows reads all weights again; a group's stay in L1 if they fit.
    weight_reads = [(weights, None), (weights * (row_blocks - 1), weights)]
    tiles = max(1, spec.rows * spec.columns // schedule.pixels)
    if group > target.caches.l1d_bytes * 0.6:
        weight_reads.append((weights * max(0, tiles - row_blocks), group))
    cycles = 0.0
    for nbytes, resident in (*data_reads, *weight_reads):
        cycles += out.batch * nbytes / _rate(resident, target)
    return cycles


def _rate(resident: float | None, target: CpuTarget) -> float:
    """Bytes a cycle for a working set of `resident` bytes (None: the first touch)."""
    if resident is None or resident > target.caches.l2_bytes * 0.6:
        return _L3_BYTES_A_CYCLE
    return 1e9 if resident <= target.caches.l1d_bytes * 0.5 else _L2_BYTES_A_CYCLE
