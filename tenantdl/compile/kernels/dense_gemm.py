"""Matrix product with constant, packed weights: out[M,N] = program(x[M,K] · w[K,N]).

Weights lie in panels of a few vectors, [panel][K][vectors][lanes], in the order in which they are
read. A register tile of `rows` × `vectors` accumulators runs over one chunk of a panel, which
stays in L2 while all row tiles of the task pass over it; sums of unfinished reductions wait in a
buffer of the task. The next chunk is prefetched meanwhile, a few lines every few steps: weights
are cold in a network, and a burst would stall. With a few rows only, memory is the limit: then
several narrow panels are streamed side by side, which keeps more lines under way.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from tvm.script.ir_builder import tirx as T

from tenantdl.compile.kernels.emit import Emitter, Index, Register
from tenantdl.compile.kernels.epilogue import EMPTY, Program
from tenantdl.compile.kernels.rows import KERNELS_KEPT, RowProgram, cases, spread
from tenantdl.compile.kernels.runs import even_runs
from tenantdl.compile.operator import Kernel

_LINE_BYTES = 64
_MACS_AN_ELEMENT = 8  # multiply-adds that take as long as an element of a normalisation


@dataclass(frozen=True, slots=True)
class DenseSpec:
    """One product: `rows` × `inner` by `inner` × `columns`."""

    rows: int
    inner: int
    columns: int
    lanes: int
    program: Program = EMPTY

    def __str__(self) -> str:
        """Sizes and epilogue, for people and tuning records."""
        steps = "".join(f" {step.op}" for step in self.program.steps)
        return f"{self.rows}x{self.inner} by {self.inner}x{self.columns}{steps}"

    @property
    def blocks(self) -> int:
        """Vectors in a row of the output; the last may be partial."""
        return -(-self.columns // self.lanes)


@dataclass(frozen=True, slots=True)
class DenseSchedule:
    """Knobs. `rows` × `vectors`: the register tile; `chunk`: reduction steps whose weights stay in
    L2; `row_block`: rows of one task, whose data stays in L2; `unroll`: steps between prefetches,
    which divides `chunk`; `ahead`: if not 0, there is one row tile, for which weights are streamed:
    panels are one vector wide, a tile reads `vectors` of them side by side, prefetched so many
    steps ahead."""

    rows: int
    vectors: int
    chunk: int
    row_block: int
    unroll: int = 16
    ahead: int = 0

    @property
    def panel(self) -> int:
        """Vectors of a panel of packed weights."""
        return 1 if self.ahead else self.vectors


@dataclass(frozen=True, slots=True)
class _Tile:
    """A register tile: its first row (in the tensor, and in the task), size, place in the panel."""

    row: Index
    row_in_task: Index
    rows: int
    block: Index
    vectors: int
    chunk: Index
    number: Index
    count: int


@lru_cache(maxsize=KERNELS_KEPT)
def dense(spec: DenseSpec, schedule: DenseSchedule) -> Kernel:
    """The kernel: parameters x [M,K], weights [blocks·K][lanes], operands, out [M,N]."""
    digest = hashlib.sha256(repr((spec, schedule)).encode()).hexdigest()[:12]
    with Emitter(f"dense_{digest}", spec.lanes) as e:
        _Dense(e, spec, schedule).emit()
    return e.kernel()


class _Dense:
    """Emission of one product."""

    def __init__(self, e: Emitter, spec: DenseSpec, schedule: DenseSchedule) -> None:
        self.e, self.spec, self.schedule = e, spec, schedule
        self.x = e.param("x", (spec.rows, spec.inner))
        self.weights = e.param("weights", (spec.blocks * spec.inner, spec.lanes))
        self.program = RowProgram(e, spec.program, (spec.rows, spec.columns))
        self.out = e.param("out", (spec.rows, spec.columns))
        self.chunks = -(-spec.inner // schedule.chunk)
        self.partial: Any = None

    def emit(self) -> None:
        """Parallel over row blocks × panels."""
        e, spec, schedule = self.e, self.spec, self.schedule
        row_blocks = -(-spec.rows // schedule.row_block)
        panels = -(-spec.blocks // schedule.vectors)
        work = spec.rows * spec.columns * spec.inner // _MACS_AN_ELEMENT
        with spread(e, row_blocks * panels, work) as task:
            row_block, panel = task // panels, task % panels
            for row, rows in cases(e, row_block, spec.rows, schedule.row_block):
                for block, vectors in cases(e, panel, spec.blocks, schedule.vectors):
                    self._panel(row, rows, block, vectors)

    def _panel(self, row0: Index, rows: int, block: Index, vectors: int) -> None:
        """All chunks and row tiles of one panel."""
        e = self.e
        if self.chunks > 1:
            self.partial = e.scratch((rows, vectors * e.lanes))
        count = sum(run.count for run in even_runs(rows, self.schedule.rows))
        with e.serial(self.chunks) as chunk:
            done = 0
            for run in even_runs(rows, self.schedule.rows):
                with e.serial(run.count) as i:
                    row = i * run.size + run.start
                    self._tile(
                        _Tile(row0 + row, row, run.size, block, vectors, chunk, done + i, count)
                    )
                done += run.count

    def _tile(self, tile: _Tile) -> None:
        e = self.e
        made = [[Register(e.lanes) for _ in range(tile.vectors)] for _ in range(tile.rows)]
        self._start(tile, made)
        self._reduce(tile, made)
        if self.chunks == 1:
            self.program.store_tile(self.out, tile.row, tile.block, made)
            return
        with e.branches(tile.chunk == self.chunks - 1) as (last, other):
            with last:
                self.program.store_tile(self.out, tile.row, tile.block, made)
            with other:
                for i, line in enumerate(made):
                    for j, register in enumerate(line):
                        place = (tile.row_in_task + i, j * e.lanes)
                        e.store(self.partial, place, register.get())

    def _start(self, tile: _Tile, made: list[list[Register]]) -> None:
        """Accumulators from zero, or from the sums of the chunks before."""
        e = self.e
        for line in made:
            for register in line:
                register.set(e.splat(0.0))
        if self.chunks == 1:
            return
        with e.when(tile.chunk > 0):
            for i, line in enumerate(made):
                for j, register in enumerate(line):
                    place = (tile.row_in_task + i, j * e.lanes)
                    register.set(e.load(self.partial, place))

    def _reduce(self, tile: _Tile, made: list[list[Register]]) -> None:
        """The steps of one chunk, with the next chunk's prefetches among them."""
        e, chunk, unroll = self.e, self.schedule.chunk, self.schedule.unroll
        inner = self.spec.inner
        k0 = tile.chunk * chunk
        rounds, rest = chunk // unroll, 0
        extent: Index = rounds
        if self.chunks == 1:
            extent, rest = divmod(inner, unroll)
        elif inner % chunk:
            last = inner - (self.chunks - 1) * chunk
            rest = last % unroll
            extent = T.Select(tile.chunk == self.chunks - 1, last // unroll, rounds)
        with e.serial(extent) as step:
            self._prefetch(tile, step, rounds)
            with e.serial(unroll) as k:
                self._step(tile, made, k0 + step * unroll + k)
        if rest:
            count = rest if self.chunks == 1 else T.Select(tile.chunk == self.chunks - 1, rest, 0)
            with e.serial(count) as k:
                self._step(tile, made, k0 + extent * unroll + k)

    def _prefetch(self, tile: _Tile, step: Index, rounds: int) -> None:
        """This round's share of the next chunk's lines, or the lines `ahead` in every stream."""
        e, schedule = self.e, self.schedule
        per_line = max(1, _LINE_BYTES // (4 * e.lanes))
        if schedule.ahead:
            for j in range(tile.vectors):
                first = self._row(tile, step * schedule.unroll + schedule.ahead, j)
                for line in range(-(-schedule.unroll // per_line)):
                    e.prefetch(self.weights, (first + line * per_line, 0))
            return
        lines = rounds * schedule.unroll * tile.vectors // per_line
        share = -(-lines // (tile.count * rounds))
        first = self._row(tile, (tile.chunk + 1) * schedule.chunk, 0)
        for i in range(share):
            line = (tile.number * rounds + step) * share + i
            e.prefetch(self.weights, (first + line * per_line, 0))

    def _row(self, tile: _Tile, k: Index, j: int) -> Index:
        """Row of the packed weights that holds vector `j` of the tile at step `k`."""
        if self.schedule.ahead:
            return (tile.block + j) * self.spec.inner + k
        return tile.block * self.spec.inner + k * tile.vectors + j

    def _step(self, tile: _Tile, made: list[list[Register]], k: Index) -> None:
        """One reduction step: a vector of weights a column block, a scalar of data a row."""
        e = self.e
        vectors = [
            e.bind(e.load(self.weights, (self._row(tile, k, j), 0))) for j in range(tile.vectors)
        ]
        for i, line in enumerate(made):
            scalar = e.bind(e.splat(self.x[tile.row + i, k]))
            for register, vector in zip(line, vectors, strict=True):
                register.add(scalar * vector)
