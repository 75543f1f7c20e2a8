"""Which register tile and loop order a direct convolution gets: a small model of the machine.

Cycles of a register tile are the larger of its multiply-adds and its loads; bytes that come from
beyond L1 are charged at the rates of L2 and L3. The model only has to rank a few candidates.
"""

from __future__ import annotations

from dataclasses import replace

from tenantdl.compile.kernels.conv_spec import ConvSchedule, ConvSpec, is_plane
from tenantdl.compile.kernels.layout import Packed
from tenantdl.compile.kernels.runs import divisor, even_runs
from tenantdl.compile.schedules import common_choice, ranked
from tenantdl.compile.target import CpuTarget

# Bytes a cycle from each level, one core; what streams overlaps with arithmetic only in part.
_L2_BYTES_A_CYCLE = 40.0
_L3_BYTES_A_CYCLE = 5.0
_FOREIGN_BYTES_A_CYCLE = 2.0  # what another core wrote last
# Weights that nobody asked for in time come from memory at this rate; asked for ahead, they do
# beside the arithmetic.
_COLD_BYTES_A_CYCLE = 3.0
_L1_SHARE, _SUMS_SHARE, _NEAR_SHARE = 0.75, 0.25, 0.6
_CHUNK_BLOCKS_MAX = 6  # more streams of weights from L1 at once were up to a third slower
_FMA_LATENCY = 4
_NEAR_SUM_CYCLES, _FAR_SUM_CYCLES = 1.5, 4.0  # a vector of sums in L1, or in L2
_LOAD_PENALTY = 0.8


def choose(spec: ConvSpec, target: CpuTarget, cores: int) -> ConvSchedule:
    """The candidate with the least predicted time on `cores` cores."""
    return ranked_schedules(spec, target, cores)[0]


def ranked_schedules(spec: ConvSpec, target: CpuTarget, cores: int) -> list[ConvSchedule]:
    """All candidates by their predicted time on `cores` cores, different register tiles first."""
    return ranked(
        candidates(spec, target, cores),
        lambda c: predicted_cycles(spec, c, target, cores),
        lambda c: (c.blocks, c.pixels, c.chunk > 0),
    )


def even_schedule(
    spec: ConvSpec, unit: ConvSpec, target: CpuTarget, cores: int
) -> ConvSchedule | None:
    """The best schedule whose register tiles divide the rows of `unit`, and so all rows that are
    multiples of these; None if tiles of other sizes are much better."""

    def cycles(schedule: ConvSchedule) -> float:
        return predicted_cycles(spec, schedule, target, cores)

    every = candidates(spec, target, cores)
    found = []
    for one in every:
        if unit.columns % one.fold == 0:
            row = unit.columns // one.fold
            pixels = divisor(row, one.pixels)
            found.append(replace(one, pixels=pixels, across=row // pixels))
    return common_choice(found, every, cycles)


def candidates(spec: ConvSpec, target: CpuTarget, cores: int) -> list[ConvSchedule]:
    """Register tiles that fit the registers × loop orders, in a fixed order."""
    spec = spec.simplified()
    found = []
    for blocks in (2, 1, 3, 4, 6, 8, 12):
        pixels_max = min((target.registers - 2 - blocks) // blocks, 28)
        if blocks > spec.out.blocks or pixels_max < 1:
            continue
        if spec.groups > 1 and spec.out.blocks // spec.groups % blocks:
            continue  # a register tile stays within a group
        # One pixel less can make a better number of tiles, or a shorter loop.
        for pixels in (pixels_max, pixels_max - 1)[: 2 if pixels_max > 8 else 1]:
            for fold, rows in _loop_orders(spec, cores):
                schedule = ConvSchedule(blocks, pixels, rows, fold)
                found.append(_with_prefetch(spec, schedule, target, cores))
            chunk = _chunk(spec, blocks, target)
            for fold, rows in _chunk_orders(spec, cores) if chunk else ():
                schedule = ConvSchedule(blocks, pixels, rows, fold, chunk=chunk)
                found.append(_with_prefetch(spec, schedule, target, cores))
    return found


def _chunk(spec: ConvSpec, blocks: int, target: CpuTarget) -> int:
    """Blocks of input channels whose weights for `blocks` output blocks stay in L1 beside the data;
    0 where all do, where blocks are ragged, or where the sums would not stay in L2."""
    lanes, caches = spec.lanes, target.caches
    if not isinstance(spec.data, Packed) or spec.groups > 1 or spec.data.channels % lanes:
        return 0
    if blocks > _CHUNK_BLOCKS_MAX:
        return 0
    nbytes = 4 * blocks * lanes * lanes * spec.kernel[0] * spec.kernel[1]
    sums = 4 * blocks * lanes * spec.rows * spec.columns
    if sums > caches.l2_bytes * _SUMS_SHARE:
        return 0
    fitting = [n for n in range(1, spec.data.blocks) if n * nbytes <= caches.l1d_bytes * _L1_SHARE]
    return max((n for n in fitting if spec.data.blocks % n == 0), default=0)


def _loop_orders(spec: ConvSpec, cores: int) -> list[tuple[int, int]]:
    """(fold, rows of a block): how much of the image each pass over the weights covers."""
    height = 1 if is_plane(spec) else spec.rows
    blocks = {1, 2, 4, 8, 14, -(-height // 2), height}
    orders = [(1, rows) for rows in sorted(blocks & set(range(1, height + 1)))]
    if spec.rows == 1 and spec.is_matrix and cores > 1:
        folds = [n for n in range(2, 65) if spec.columns % n == 0 and spec.columns // n >= 12]
        orders += [(n, 1) for n in folds if n % cores == 0][-4:]
    return orders


def _chunk_orders(spec: ConvSpec, cores: int) -> list[tuple[int, int]]:
    """(fold, rows of a block): all of the image, or a part for each core: its pixels are then those
    that it made itself, if all operators do so."""
    height = 1 if is_plane(spec) else spec.rows
    orders = [(1, height)]
    if spec.rows == 1 and spec.is_matrix:
        long = spec.columns % cores == 0 and spec.columns // cores >= 12
        orders += [(cores, 1)] if cores > 1 and long else []
    elif height >= 2 * cores:
        orders.append((1, -(-height // cores)))
    return orders


def _with_prefetch(
    spec: ConvSpec, schedule: ConvSchedule, target: CpuTarget, cores: int
) -> ConvSchedule:
    """Weights are prefetched where a core reads each of them once. Data is, where it streams from
    beyond L2 and a 1×1 kernel leaves no reuse to hide behind, and beyond L1 for taller kernels: a
    tile touches many rows, each for too short a run for the hardware to see where it goes."""
    packed = isinstance(spec.data, Packed)
    plane = is_plane(spec)
    height = 1 if plane else spec.folded(schedule.fold).rows
    nbytes = 4 * spec.data.batch * spec.data.channels * spec.data.height * spec.data.width
    streams = nbytes > target.caches.l2_bytes * 0.3 and spec.kernel == (1, 1)
    streams |= nbytes > target.caches.l1d_bytes and spec.kernel[0] > 1
    return replace(
        schedule,
        prefetch_weights=packed and schedule.row_block * cores >= height,
        prefetch_data=packed and streams and not plane,
    )


def predicted_cycles(
    spec: ConvSpec, schedule: ConvSchedule, target: CpuTarget, cores: int
) -> float:
    """Cycles of the busiest of `cores` cores."""
    spec = spec.simplified().folded(schedule.fold)
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
    if schedule.chunk:  # sums are set, read and written for every chunk, and read at the end
        trips = spec.data.channels // (schedule.chunk * spec.lanes) + 1
        sums = 4 * schedule.blocks * spec.lanes * min(spec.rows, schedule.row_block) * spec.columns
        near = sums <= target.caches.l1d_bytes * _NEAR_SHARE
        moved = out.batch * out.blocks * spec.rows * spec.columns * trips
        arithmetic += moved * (_NEAR_SUM_CYCLES if near else _FAR_SUM_CYCLES)
    again = _reread_cycles(spec, schedule, target, row_blocks)
    busy = (arithmetic + again) * share
    return busy + _first_touch_cycles(spec, schedule, row_blocks, cores, busy)


def step_cycles(pixels: int, blocks: int) -> float:
    """Cycles of one reduction step: two multiply-adds a cycle, slower the more loads each needs (a
    scalar a pixel, a vector a block), and never faster than a chain of dependent ones."""
    products = pixels * blocks
    loads = (pixels + blocks) / products
    return max(products / 2 * (1 + _LOAD_PENALTY * max(0.0, loads - 0.55)), float(_FMA_LATENCY))


def _bytes(spec: ConvSpec) -> tuple[int, int]:
    """Weights, and data of one image."""
    data = 4
    for extent in spec.data.shape[1:]:
        data *= extent
    return 4 * spec.out.blocks * spec.lanes * spec.steps, data


def _first_touch_cycles(
    spec: ConvSpec, schedule: ConvSchedule, row_blocks: int, cores: int, busy: float
) -> float:
    """Cycles of one core to fetch data and weights for the first time, beyond those that it is
    `busy` with arithmetic if it asks for weights ahead. Tasks run through the images
    and their rows first, so cores split those if there are enough, and each reads all weights and
    mostly data that it wrote itself; else they split channels, and each reads all data, most of it
    from other cores' caches."""
    weights, data = _bytes(spec)
    by_rows = spec.out.batch * row_blocks >= cores
    own = data * spec.out.batch / cores
    foreign = 0.0 if by_rows else own * (cores - 1)
    cold = (weights if by_rows else weights / cores) / _COLD_BYTES_A_CYCLE
    if schedule.prefetch_weights:
        cold = max(0.0, cold - busy)
    return own / _L3_BYTES_A_CYCLE + foreign / _FOREIGN_BYTES_A_CYCLE + cold


def _reread_cycles(
    spec: ConvSpec, schedule: ConvSchedule, target: CpuTarget, row_blocks: int
) -> float:
    """Cycles for bytes that tiles read again from beyond L1 under this loop order."""
    weights, data = _bytes(spec)
    group = schedule.blocks * spec.lanes * spec.steps * 4
    passes = -(-spec.out.blocks // schedule.blocks)
    # Every group of output channels reads the rows of its block again, from where they still are.
    reads = [(data * (passes - 1), data / row_blocks)]
    # Every block of rows reads all weights again; a group's stay in L1 if they fit.
    reads.append((weights * (row_blocks - 1), weights))
    tiles = max(1, spec.rows * spec.columns // schedule.pixels)
    if group > target.caches.l1d_bytes * 0.6 and not schedule.chunk:
        reads.append((weights * max(0, tiles - row_blocks), group))
    return spec.out.batch * sum(nbytes / _rate(resident, target) for nbytes, resident in reads)


def footprint(spec: ConvSpec, schedule: ConvSchedule, target: CpuTarget) -> tuple[int, int]:
    """Bytes that a core comes back to: weights of a group and the rows of a block. Bytes from
    beyond its caches: everything once, and what is read again and exceeds L2."""
    spec = spec.simplified().folded(schedule.fold)
    weights, data = _bytes(spec)
    height = 1 if is_plane(spec) else spec.rows
    row_blocks = -(-height // schedule.row_block)
    group = schedule.blocks * spec.lanes * spec.steps * 4
    rows = data // row_blocks
    out = 4 * spec.out.batch * spec.out.blocks * spec.lanes * spec.rows * spec.columns
    traffic = weights + spec.out.batch * data + out
    if rows > target.caches.l2_bytes * 0.6:
        traffic += spec.out.batch * data * (-(-spec.out.blocks // schedule.blocks) - 1)
    if weights > target.caches.l2_bytes * 0.6:
        traffic += spec.out.batch * weights * (row_blocks - 1)
    return group + rows, traffic


def _rate(resident: float, target: CpuTarget) -> float:
    """Bytes a cycle for a working set of `resident` bytes."""
    if resident > target.caches.l2_bytes * 0.6:
        return _L3_BYTES_A_CYCLE
    return 1e9 if resident <= target.caches.l1d_bytes * 0.5 else _L2_BYTES_A_CYCLE
