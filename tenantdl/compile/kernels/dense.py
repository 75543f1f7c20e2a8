"""Dense layers: MatMul with constant weights, row-major, all leading dimensions one.

`dense_gemm` holds the kernel; here are the packing of weights and the choice of its schedule.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

import numpy as np

from tenantdl.compile.context import Context, Form, Group
from tenantdl.compile.fusion import bind_program
from tenantdl.compile.graph import Array, Node
from tenantdl.compile.kernels.dense_gemm import DenseSchedule, DenseSpec, dense
from tenantdl.compile.kernels.registry import Template
from tenantdl.compile.kernels.runs import divisor, even_runs
from tenantdl.compile.operator import Kernel, Wide
from tenantdl.compile.schedules import Choice, common_choice, ranked
from tenantdl.compile.target import CpuTarget

_TILE_ROWS_MAX = 8  # rows of a power-of-two pitch share the ways of one L1 set
_UNROLL, _UNROLL_FEW = 16, 4  # steps between prefetches; one register tile of a few rows
_AHEAD_STEPS = 64  # how far ahead weights that are used once are prefetched
_ROW_BLOCK_MIN = 128  # fewer rows re-read the weights too often
# Bytes a cycle that a core gets from memory and from L2.
_MEMORY_BYTES_A_CYCLE = 6.0
_L2_BYTES_A_CYCLE = 32.0
_L3_BYTES_A_CYCLE = 16.0  # a stream that the hardware foresees, beside arithmetic
_L2_SHARE = 0.5
_OVERLAP = 0.75  # share of the lesser of arithmetic and memory traffic that hides in the other
_FMA_LATENCY = 4


def _form(context: Context, node: Node) -> Form | None:
    weights = context.array(node.inputs[1])
    x, out = context.type(node.inputs[0]), context.type(node.outputs[0])
    fits = (
        weights is not None
        and weights.ndim >= 2
        and weights.dtype == np.float32
        and math.prod(weights.shape[:-2]) == 1
        and context.array(node.inputs[0]) is None
    )
    return "plain" if fits and x.dtype == "float32" and x.size and out.size else None


def _lower(context: Context, group: Group) -> None:
    node = group.anchor
    weights = context.graph.constants[node.inputs[1]]
    inner, columns = weights.shape[-2:]
    source = context.plain(node.inputs[0])
    program, operands = bind_program(context, group, "plain")
    rows = context.type(node.inputs[0]).size // inner
    spec = DenseSpec(rows, inner, columns, context.target.lanes, program)
    # Plans of one bundle share their weights: the first one says how these are packed.
    panels = context.schedules.panels
    choice = _choice(context, spec, panels.get(node.inputs[1]), spec.rows * context.schedules.grain)
    schedule = choice.schedule
    panels.setdefault(node.inputs[1], schedule.panel)
    packed = context.weights(
        weights,
        ("dense", node.inputs[1], schedule.panel),
        lambda: pack_panels(weights.reshape(inner, columns), spec, schedule),
    )
    args = (source, packed, *operands, context.new_plain(group.output))
    kernel = dense(spec, schedule)
    flops = 2 * rows * inner * columns

    def wider(requests: int) -> Kernel | None:
        wide = replace(spec, rows=spec.rows * requests)
        if schedule.even and _fits(wide, context.target):
            return dense(wide, replace(schedule, row_block=wide.rows))
        found = ranked_schedules(wide, context.target, context.cores)
        fits = [candidate for candidate in found if candidate.panel == schedule.panel]
        return dense(wide, fits[0]) if fits else None

    context.emit(
        group.name,
        "dense",
        kernel,
        args,
        flops=flops,
        choices=(choice,),
        wide=Wide(spec.rows, wider),
    )


def _choice(
    context: Context, spec: DenseSpec, panel: int | None, unit: Fraction
) -> Choice[DenseSchedule]:
    """The schedule for weights in panels of `panel` vectors, if they are packed already. `unit`:
    rows that those of all buckets are multiples of: one schedule for all where that costs little
    and the rows stay in L2, as one block."""
    target, cores, schedules = context.target, context.cores, context.schedules
    found = ranked_schedules(spec, target, cores)
    alike = [c for c in found if c.panel == panel or panel is None]
    found = alike or found
    if unit and unit.denominator == 1 and _fits(spec, target):
        key = f"dense {replace(spec, rows=int(unit))} on {cores}"
        if key not in schedules.common:
            schedules.common[key] = even_schedule(spec, found, int(unit), target, cores)
        common = schedules.common[key]
        if common is not None and panel in (None, common.panel):
            even = replace(common, row_block=spec.rows)
            return Choice(key, even, True, footprint(spec, even))
    key = f"dense {spec} on {cores}"
    return schedules.pick(key, found, lambda s: footprint(spec, s))


def _fits(spec: DenseSpec, target: CpuTarget) -> bool:
    """Whether all rows stay in L2."""
    return 4 * spec.inner * spec.rows <= target.caches.l2_bytes * _L2_SHARE


def even_schedule(
    spec: DenseSpec, found: Sequence[DenseSchedule], unit: int, target: CpuTarget, cores: int
) -> DenseSchedule | None:
    """The best of `found`, made so that its register tiles divide `unit` rows; None if that is much
    worse than the best as it is."""

    def cycles(schedule: DenseSchedule) -> float:
        return predicted_cycles(spec, schedule, target, cores)

    even = [
        replace(one, rows=divisor(unit, one.rows), row_block=spec.rows, even=True)
        for one in found
        if not one.ahead and one.group == 1
    ]
    return common_choice(even, found, cycles)


def pack_panels(weights: Array, spec: DenseSpec, schedule: DenseSchedule) -> Array:
    """[K][N] → [panel][K][vectors][lanes] as [blocks·K][lanes], missing columns zero."""
    inner, columns = weights.shape
    blocks = spec.blocks
    if columns % spec.lanes:
        full = np.zeros((inner, blocks * spec.lanes), np.float32)
        full[:, :columns] = weights
        weights = full
    split = weights.reshape(inner, blocks, spec.lanes)
    packed = np.empty((blocks * inner, spec.lanes), np.float32)
    for run in even_runs(blocks, schedule.panel):
        end = run.start + run.count * run.size
        part = split[:, run.start : end].reshape(inner, run.count, run.size, spec.lanes)
        packed[run.start * inner : end * inner] = part.transpose(1, 0, 2, 3).reshape(-1, spec.lanes)
    return packed


def ranked_schedules(spec: DenseSpec, target: CpuTarget, cores: int) -> list[DenseSchedule]:
    """Candidates by their predicted time on `cores` cores, different register tiles first."""
    return ranked(
        candidates(spec, target),
        lambda c: predicted_cycles(spec, c, target, cores),
        lambda c: (c.rows, c.vectors, c.group > 1),
    )


def candidates(spec: DenseSpec, target: CpuTarget) -> list[DenseSchedule]:
    """Register tiles that fit the registers × splits of the rows, in order of preference."""
    found = []
    fitting = target.caches.l2_bytes // 2 // (4 * spec.inner)
    fitting_chunk = target.caches.l2_bytes // 8
    for vectors in (8, 6, 4, 3, 2, 1):
        rows_max = min((target.registers - 1 - vectors) // vectors, _TILE_ROWS_MAX)
        if vectors > spec.blocks or rows_max < 1:
            continue
        rows = even_runs(spec.rows, rows_max)[0].size
        single = spec.rows <= rows
        unroll, ahead = (_UNROLL_FEW, _AHEAD_STEPS) if single else (_UNROLL, 0)
        steps_max = spec.inner if single else fitting_chunk // (4 * spec.lanes * vectors)
        chunk = _chunk(spec.inner, unroll, steps_max)
        blocks_min = -(-spec.rows // max(_ROW_BLOCK_MIN, fitting))
        for row_blocks in dict.fromkeys((1, 2, 3, 4, 8, 16)):
            row_block = -(-spec.rows // (blocks_min * row_blocks))
            row_block = min(spec.rows, -(-row_block // rows) * rows)
            schedule = DenseSchedule(rows, vectors, chunk, row_block, unroll, ahead)
            found += [replace(schedule, group=n) for n in _groups(spec, schedule, target)]
    return list(dict.fromkeys(found))


def _groups(spec: DenseSpec, schedule: DenseSchedule, target: CpuTarget) -> list[int]:
    """Panels of a task: several where the rows do not stay in L2 and the sums of all panels do."""
    panels = -(-spec.blocks // schedule.vectors)
    if schedule.chunk >= spec.inner or not _streams(spec, schedule, target):
        return [1]
    sums = 4 * spec.lanes * schedule.row_block * schedule.vectors
    sizes = [-(-panels // parts) for parts in (4, 8, 16)]
    return [1, *(size for size in sizes if size * sums <= target.caches.l2_bytes // 4)]


def _streams(spec: DenseSpec, schedule: DenseSchedule, target: CpuTarget) -> bool:
    """Whether the rows of a task come from beyond L2 for every panel."""
    return 4 * spec.inner * schedule.row_block > target.caches.l2_bytes * _L2_SHARE


def _chunk(inner: int, unroll: int, steps_max: int) -> int:
    """Reduction steps of a chunk: even parts of the whole, at most about `steps_max`."""
    count = -(-inner // max(unroll, steps_max))
    return -(-inner // (count * unroll)) * unroll


def predicted_cycles(
    spec: DenseSpec, schedule: DenseSchedule, target: CpuTarget, cores: int
) -> float:
    """Cycles of the busiest of `cores` cores; only good enough to rank candidates."""
    row_blocks = -(-spec.rows // schedule.row_block)
    panels = even_runs(spec.blocks, schedule.vectors)
    tiles = even_runs(schedule.row_block, schedule.rows)
    cycles = 0.0
    for panel in panels:
        nbytes = panel.size * spec.lanes * 4
        step = sum(run.count * _step_cycles(run.size, panel.size, nbytes) for run in tiles)
        fetched = nbytes / _MEMORY_BYTES_A_CYCLE
        exposed = (1 - _OVERLAP) * min(step, fetched)
        cycles += panel.count * (max(step, fetched) + exposed) * spec.inner
    count = sum(panel.count for panel in panels)
    groups = -(-count // schedule.group)
    if _streams(spec, schedule, target):
        cycles += groups * 4 * spec.inner * schedule.row_block / _L3_BYTES_A_CYCLE
    return _busiest(row_blocks * groups, count, schedule.group, cores) * cycles * row_blocks


def _busiest(tasks: int, panels: int, group: int, cores: int) -> float:
    """The share of the core that gets most panels: tasks are dealt out in order."""
    groups = -(-panels // group)
    ends = [group * panels // groups for group in range(groups + 1)]
    sizes = [b - a for a, b in itertools.pairwise(ends)] * (tasks // groups)
    cuts = [tasks * core // cores for core in range(cores + 1)]
    return max(sum(sizes[a:b]) for a, b in itertools.pairwise(cuts)) / sum(sizes)


def footprint(spec: DenseSpec, schedule: DenseSchedule) -> tuple[int, int]:
    """Bytes that a core comes back to: a chunk of a panel and the rows of a task. Bytes from beyond
    its caches: data and results once, all weights for every block of rows."""
    row_blocks = -(-spec.rows // schedule.row_block)
    panel = 4 * spec.lanes * schedule.vectors * schedule.chunk
    weights = 4 * spec.inner * spec.blocks * spec.lanes
    data = 4 * spec.rows * (spec.inner + spec.blocks * spec.lanes)
    return panel + 4 * schedule.row_block * spec.inner, data + row_blocks * weights


def _step_cycles(rows: int, vectors: int, nbytes: int) -> float:
    """One reduction step of a register tile: two multiply-adds, two loads a cycle, and what part of
    the weights' way from L2 shows."""
    streamed = nbytes / _L2_BYTES_A_CYCLE
    return max(rows * vectors / 2, (rows + vectors) / 2, _FMA_LATENCY, streamed) + streamed / 8


TEMPLATES = {"MatMul": Template(_form, _lower, fuses=True)}
