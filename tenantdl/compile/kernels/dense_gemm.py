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
    which divides `chunk`; `group`: panels of a task at most: a chunk of the rows' data meets all of
    them before the next one does, so that rows that exceed L2 are fetched once a group; `ahead`: if
    not 0, there is one row tile, for which weights are streamed: panels are one vector wide, a tile
    reads `vectors` of them side by side, prefetched so many steps ahead. `even`: suits all numbers
    of rows that `rows` divides, so prefetches, which depend on these, are a loop."""

    rows: int
    vectors: int
    chunk: int
    row_block: int
    unroll: int = 16
    ahead: int = 0
    group: int = 1
    even: bool = False

    @property
    def panel(self) -> int:
        """Vectors of a panel of packed weights."""
        return 1 if self.ahead else self.vectors


@dataclass(frozen=True, slots=True)
class _Tile:
    """A register tile: its first row (in the tensor, and in the task), size, place in the panel;
    `panel`: number in the task; `following`: row of the weights that are read after this chunk."""

    row: Index
    row_in_task: Index
    rows: int
    block: Index
    vectors: int
    panel: Index
    chunk: Index
    following: Index
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
        self.panels = -(-spec.blocks // schedule.vectors)
        groups = -(-self.panels // schedule.group)
        work = spec.rows * spec.columns * spec.inner // _MACS_AN_ELEMENT
        with spread(e, row_blocks * groups, work) as task:
            row_block, group = task // groups, task % groups
            for row, rows in cases(e, row_block, spec.rows, schedule.row_block):
                if schedule.group == 1:
                    self._group(row, rows, group, 1)
                else:  # as even as can be
                    first = e.integer(group * self.panels // groups)
                    end = (group + 1) * self.panels // groups
                    self._group(row, rows, first, e.integer(end - first))

    def _group(self, row0: Index, rows: int, first: Index, held: Index) -> None:
        """All chunks over the `held` panels from `first` on, and the row tiles of each."""
        e, spec, size = self.e, self.spec, self.schedule.group
        if self.chunks > 1:
            self.partial = e.scratch((rows, size * self.schedule.vectors * e.lanes))
        with e.serial(self.chunks) as chunk, e.serial(held) as panel:
            for block, vectors in cases(e, first + panel, spec.blocks, self.schedule.vectors):
                following = self._following(first, panel, held, block, vectors, chunk)
                self._panel(row0, rows, (block, vectors, panel), chunk, following)

    def _following(
        self, first: Index, panel: Index, held: Index, block: Index, vectors: int, chunk: Index
    ) -> Index:
        """Row of the packed weights that follows a chunk of a panel in the order of reading."""
        inner, steps = self.spec.inner, self.schedule.chunk
        after = (block + vectors) * inner  # the next panel's first
        if self.schedule.group == 1:
            return block * inner + (chunk + 1) * steps * vectors
        beside = after + chunk * steps * vectors
        back = first * self.schedule.vectors * inner + (chunk + 1) * steps * vectors
        rest = T.Select(chunk + 1 == self.chunks, after, back)
        return self.e.integer(T.Select(panel + 1 == held, rest, beside))

    def _panel(
        self,
        row0: Index,
        rows: int,
        panel: tuple[Index, int, Index],
        chunk: Index,
        following: Index,
    ) -> None:
        """The row tiles of one chunk of a panel (first block, vectors, number in the task)."""
        e, done = self.e, 0
        block, vectors, number = panel
        runs = even_runs(rows, self.schedule.rows)
        count = sum(run.count for run in runs)
        for run in runs:
            with e.serial(run.count) as i:
                row = i * run.size + run.start
                size = (run.size, block, vectors, number)
                self._tile(_Tile(row0 + row, row, *size, chunk, following, done + i, count))
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
                        place = (tile.row_in_task + i, self._column(tile, j))
                        e.store(self.partial, place, register.get())

    def _column(self, tile: _Tile, j: int) -> Index:
        """Where the sums of vector `j` of a tile wait."""
        return (tile.panel * self.schedule.vectors + j) * self.e.lanes

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
                    place = (tile.row_in_task + i, self._column(tile, j))
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
        first = tile.following + (tile.number * rounds + step) * share * per_line
        if schedule.even:
            with e.serial(share) as i:
                e.prefetch(self.weights, (first + i * per_line, 0))
        else:
            for i in range(share):
                e.prefetch(self.weights, (first + i * per_line, 0))
        self._prefetch_results(tile, step, rounds)

    def _prefetch_results(self, tile: _Tile, step: Index, rounds: int) -> None:
        """This round's share of the lines that the tile will write, and read for its epilogue."""
        e = self.e
        share = -(-tile.rows * tile.vectors // rounds)
        last = tile.chunk == self.chunks - 1
        for i in range(share):
            number = step * share + i
            row, column = tile.row + number // tile.vectors, tile.block + number % tile.vectors
            with e.when(T.And(last, number < tile.rows * tile.vectors)):
                e.prefetch(self.out, (row, column * e.lanes), locality=3, write=True)
                self.program.prefetch(row, column * e.lanes)

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
