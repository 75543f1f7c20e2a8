"""softmax(scale · q·kᵀ + mask) · v for one head after another, scores never leaving L1.

A task takes some queries of one head. It copies the keys as [depth][keys] and the values as dense
rows, then for a few queries at a time: scores in register tiles, softmax along rows of a small
buffer, and the product with the values in register tiles.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from tvm.script.ir_builder import tirx as T

from tenantdl.compile.kernels.emit import Emitter, Index, Register, Value
from tenantdl.compile.kernels.rows import KERNELS_KEPT, cases, loops, part
from tenantdl.compile.kernels.runs import pieces
from tenantdl.compile.kernels.tiles import multiply, transposed
from tenantdl.compile.kernels.vmath import VectorMath
from tenantdl.compile.operator import Kernel

_LOWEST = -3.0e38  # a score that no softmax shows
_SOFTMAX_ROWS = 4

Strides = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class AttentionSpec:
    """`sizes` of the distinct tensors that hold q, k, v and mask (elements), and `places` of those
    four among them; views as (offset, strides of batch, head, token, depth); `mask` strides of
    (batch, head, query, key), empty without one."""

    batch: int
    heads: int
    queries: int
    keys: int
    depth: int
    value_depth: int
    sizes: tuple[int, ...]
    places: tuple[int, ...]
    q: Strides
    k: Strides
    v: Strides
    mask: Strides
    scale: float
    tokens_first: bool
    lanes: int

    @property
    def flops(self) -> int:
        """Multiplications and additions of both products."""
        scores = self.batch * self.heads * self.queries * self.keys
        return 2 * scores * (self.depth + self.value_depth)


@dataclass(frozen=True, slots=True)
class AttentionSchedule:
    """Knobs. Queries of a task and of a block (whose scores stay in L1), register tiles of scores
    (rows × vectors of keys) and of results (rows × all vectors of a value)."""

    task_rows: int
    block_rows: int
    score_rows: int
    score_vectors: int
    value_rows: int


@lru_cache(maxsize=KERNELS_KEPT)
def attention(spec: AttentionSpec, schedule: AttentionSchedule) -> Kernel:
    """The kernel: parameters are the distinct tensors as one dimension each, then the output,
    [batch][queries][heads·value depth] or [batch][heads][queries][value depth]."""
    digest = hashlib.sha256(repr((spec, schedule)).encode()).hexdigest()[:12]
    with Emitter(f"attention_{digest}", spec.lanes) as e:
        _Attention(e, spec, schedule).emit()
    return e.kernel()


class _Attention:
    """Emission of one kernel."""

    def __init__(self, e: Emitter, spec: AttentionSpec, schedule: AttentionSchedule) -> None:
        self.e, self.spec, self.schedule = e, spec, schedule
        self.math = VectorMath(e)
        inputs = [e.param(f"x{i}", (size,)) for i, size in enumerate(spec.sizes)]
        self.q, self.k, self.v = (inputs[place] for place in spec.places[:3])
        self.mask = inputs[spec.places[3]] if spec.mask else None
        self.key_blocks = -(-spec.keys // e.lanes)
        self.value_blocks = -(-spec.value_depth // e.lanes)
        rows = spec.batch * spec.queries if spec.tokens_first else spec.batch * spec.heads
        self.out = e.param("out", (rows, spec.batch * self._out_size() // rows))

    def _out_size(self) -> int:
        spec = self.spec
        return spec.heads * spec.queries * spec.value_depth

    def emit(self) -> None:
        """Parallel over batch × heads × parts of the queries."""
        e, spec = self.e, self.spec
        parts = -(-spec.queries // self.schedule.task_rows)
        with e.parallel(spec.batch * spec.heads * parts) as task:
            batch, head = task // (spec.heads * parts), task // parts % spec.heads
            turned = e.scratch((spec.depth, self.key_blocks * e.lanes))
            self._turn_keys(turned, self._start(spec.k, batch, head))
            values = self._values(batch, head)
            for row, rows in cases(e, task % parts, spec.queries, self.schedule.task_rows):
                for block, count in loops(e, rows, self.schedule.block_rows):
                    scores = e.scratch((count, self.key_blocks * e.lanes))
                    inverse = e.scratch((count,))
                    self._scores(scores, turned, batch, head, row + block, count)
                    for first, side in loops(e, count, _SOFTMAX_ROWS):
                        self._softmax(scores, inverse, first, side)
                    self._results(scores, inverse, values, (batch, head, row + block), count)

    def _start(self, view: Strides, batch: Index, head: Index) -> Index:
        return view[0] + batch * view[1] + head * view[2]

    # keys and values

    def _turn_keys(self, turned: Any, start: Index) -> None:
        """Keys as [depth][keys], missing ones zero."""
        e, spec = self.e, self.spec
        lanes, (token, step) = e.lanes, spec.k[3:]
        rest = spec.keys % lanes
        with e.serial(self.key_blocks) as block:
            if step == 1 and spec.depth % lanes == 0 and not rest:
                with e.serial(spec.depth // lanes) as d:
                    first = start + block * lanes * token + d * lanes
                    rows = [e.bind(e.load(self.k, (first + i * token,))) for i in range(lanes)]
                    for i, row in enumerate(transposed(e, rows)):
                        e.store(turned, (d * lanes + i, block * lanes), row)
                return
            with e.serial(lanes) as lane, e.serial(spec.depth) as d:
                key = block * lanes + lane
                source = self.k[start + key * token + d * step]
                if not rest:
                    T.buffer_store(turned, source, [d, key])
                    return
                with e.branches(key < spec.keys) as (real, missing):
                    with real:
                        T.buffer_store(turned, source, [d, key])
                    with missing:
                        T.buffer_store(turned, T.float32(0), [d, key])

    def _values(self, batch: Index, head: Index) -> Any:
        """Values as dense rows of whole vectors. In place their lines would share few cache sets:
        the pitch is often a multiple of a page."""
        e, spec = self.e, self.spec
        start = self._start(spec.v, batch, head)
        token, step = spec.v[3:]
        values = e.scratch((spec.keys, self.value_blocks * e.lanes))
        with e.serial(spec.keys) as n:
            first = start + n * token
            if step == 1 and spec.value_depth % e.lanes == 0:
                for block in range(self.value_blocks):
                    column = block * e.lanes
                    e.store(values, (n, column), e.load(self.v, (first + column,)))
                return values
            for block in range(self.value_blocks):
                e.store(values, (n, block * e.lanes), e.splat(0.0))
            with e.serial(spec.value_depth) as d:
                T.buffer_store(values, self.v[first + d * step], [n, d])
        return values

    # scores

    def _scores(
        self, scores: Any, turned: Any, batch: Index, head: Index, row: Index, count: int
    ) -> None:
        """scale · q·kᵀ + mask for `count` queries from `row` on."""
        e, spec = self.e, self.spec
        start = self._start(spec.q, batch, head)
        token, step = spec.q[3:]
        for i, rows in loops(e, count, self.schedule.score_rows):
            for block, vectors in loops(e, self.key_blocks, self.schedule.score_vectors):
                made = [e.registers(vectors) for _ in range(rows)]
                with e.serial(spec.depth) as d:
                    keys = [
                        e.bind(e.load(turned, (d, (block + j) * e.lanes))) for j in range(vectors)
                    ]
                    for r, line in enumerate(made):
                        index = start + (row + i + r) * token + d * step
                        multiply(e, line, self.q[index], keys)
                for r, line in enumerate(made):
                    for j, register in enumerate(line):
                        at = (batch, head, row + i + r, block + j)
                        value = self._masked(register.get(), at)
                        e.store(scores, (i + r, (block + j) * e.lanes), value)

    def _masked(self, score: Value, at: tuple[Index, Index, Index, Index]) -> Value:
        """The scaled score plus its mask; keys that do not exist get the lowest."""
        e, spec = self.e, self.spec
        scaled = e.bind(score * e.splat(spec.scale))
        batch, head, row, block = at
        rest = spec.keys % e.lanes
        if self.mask is None and not rest:
            return scaled
        base: Index = 0
        if self.mask is not None:
            base = batch * spec.mask[0] + head * spec.mask[1] + row * spec.mask[2]
            if spec.mask[3] == 0:
                scaled = e.bind(scaled + e.splat(self.mask[base]))
        vector = self.mask is not None and spec.mask[3] == 1
        if not rest:
            return scaled + e.load(self.mask, (base + block * e.lanes,)) if vector else scaled
        result = Register(e.lanes)
        with e.branches(block < self.key_blocks - 1) as (whole, partial):
            with whole:
                mask = e.load(self.mask, (base + block * e.lanes,)) if vector else e.splat(0.0)
                result.set(scaled + mask)
            with partial:
                result.set(self._partial(scaled, base + block * e.lanes if vector else None, rest))
        return result.get()

    def _partial(self, scaled: Value, mask: Index | None, rest: int) -> Value:
        """The last vector of scores: mask where keys exist, lowest where none do."""
        e = self.e
        line = e.scratch((e.lanes,))
        e.store(line, (0,), e.splat(_LOWEST))
        for start, lanes in pieces(rest, e.lanes):
            piece = part(e, scaled, start, lanes)
            if mask is not None:
                piece = piece + e.load(self.mask, (mask + start,), lanes)
            e.store(line, (start,), piece, lanes)
        return e.load(line, (0,))

    def _softmax(self, scores: Any, inverse: Any, first: Index, rows: int) -> None:
        """exp(score − highest) in a few rows, side by side to hide latencies, and one over their
        sums."""
        e = self.e
        highest = e.registers(rows, _LOWEST)
        with e.serial(self.key_blocks) as block:
            for i, register in enumerate(highest):
                score = e.load(scores, (first + i, block * e.lanes))
                register.set(T.max(register.get(), score))
        tops = [e.bind(e.splat(e.reduce_max(register.get()))) for register in highest]
        totals = e.registers(rows)
        with e.serial(self.key_blocks) as block:
            for i, (top, total) in enumerate(zip(tops, totals, strict=True)):
                at = (first + i, block * e.lanes)
                power = self.math.exp(e.load(scores, at) - top)
                e.store(scores, at, power)
                total.set(total.get() + power)
        for i, total in enumerate(totals):
            T.buffer_store(inverse, T.float32(1) / e.reduce_sum(total.get()), [first + i])

    # results

    def _results(
        self,
        scores: Any,
        inverse: Any,
        values: Any,
        at: tuple[Index, Index, Index],
        count: int,
    ) -> None:
        """Weights · values, divided by the sums of the weights, stored."""
        e, spec = self.e, self.spec
        for i, rows in loops(e, count, self.schedule.value_rows):
            for block, vectors in loops(e, self.value_blocks, self.schedule.score_vectors):
                made = [e.registers(vectors) for _ in range(rows)]
                with e.serial(spec.keys) as n:
                    loaded = [
                        e.bind(e.load(values, (n, (block + j) * e.lanes))) for j in range(vectors)
                    ]
                    for r, line in enumerate(made):
                        multiply(e, line, scores[i + r, n], loaded)
                for r, line in enumerate(made):
                    factor = e.bind(e.splat(inverse[i + r]))
                    for j, register in enumerate(line):
                        self._store(at, i + r, block + j, register.get() * factor)

    def _store(self, at: tuple[Index, Index, Index], i: Index, block: Index, value: Value) -> None:
        e, spec = self.e, self.spec
        batch, head, row = at
        column = block * e.lanes
        if spec.tokens_first:
            place = (batch * spec.queries + row + i, head * spec.value_depth + column)
        else:
            place = (batch * spec.heads + head, (row + i) * spec.value_depth + column)
        value = e.bind(value)
        rest = spec.value_depth % e.lanes

        def store(count: int) -> None:
            for start, lanes in pieces(count, e.lanes):
                piece = part(e, value, start, lanes)
                e.store(self.out, (place[0], place[1] + start), piece, lanes)

        if not rest:
            store(e.lanes)
            return
        with e.branches(block < self.value_blocks - 1) as (whole, partial):
            with whole:
                store(e.lanes)
            with partial:
                store(rest)
