"""One program for several requests at once, out of the program for one.

Requests are independent, so a batch runs the same kernels over the same packed weights, request by
request: nothing is compiled again, and the results are those of requests that came alone. The
order of the calls is free, and it is what batching gains by. Consecutive operators whose weights
fit half of L2 make a *stretch*: one request after the other runs through it, which finds the
weights in L2 and leaves its activations there. Operators on few rows (dense layers behind a
pooling, short sequences) take several requests' rows in one call (`Wide`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from tvm.script.ir_builder import tirx as T

from tenantdl.bundle.manifest import ALIGNMENT
from tenantdl.compile.graph import Graph
from tenantdl.compile.kernels.emit import Emitter
from tenantdl.compile.memory import resolve
from tenantdl.compile.operator import Buffer, Kernel, Operator, Program
from tenantdl.errors import UserError

BATCH_MAX = 64
# Rows that make the best of weights: more in one call gain nothing.
_ROWS_MAX = 128


def check_batchable(graph: Graph) -> None:
    """Raises UserError unless every input and output is of one request, along its first axis."""
    for name in (*graph.inputs, *graph.outputs):
        shape = graph.types[name].shape
        if not shape or shape[0] != 1:
            raise UserError(
                f"requests cannot be batched: {name!r} is {list(shape)}, its first extent is not 1"
            )


def batched(program: Program, requests: int, l2_bytes: int) -> Program:
    """`program` for `requests` requests: inputs and outputs are stacked along the first axis."""
    return _Batch(program, requests).expand(l2_bytes // 2)


class _Batch:
    def __init__(self, program: Program, requests: int) -> None:
        self.source, self.requests = program, requests
        self.out = Program([], {}, dict(program.constants), [], [], list(program.notes))
        for name in program.constants:
            self.out.buffers[name] = program.buffers[name]
        self.wide = [self._widen(operator) for operator in program.operators]
        self.whole = self._together()

    # --- what is done for several requests at once

    def _widen(self, operator: Operator) -> tuple[int, Kernel]:
        """The most requests that one call takes, and its kernel."""
        wide, one = operator.wide, (1, operator.kernel)
        if wide is None or not all(self._stacks(name) for name in operator.args):
            return one
        most = max(1, _ROWS_MAX // wide.rows)
        count = max(n for n in range(1, self.requests + 1) if self.requests % n == 0 and n <= most)
        kernel = wide.kernel(count) if count > 1 else None
        if kernel is None:
            return one
        pairs = zip(operator.args, operator.kernel.parameters(), kernel.parameters(), strict=True)
        scales = all(
            new.size == old.size * (1 if self._constant(n) else count) for n, old, new in pairs
        )
        return (count, kernel) if scales else one

    def _stacks(self, name: str) -> bool:
        """Whether the value of one request can directly follow that of another."""
        if self._constant(name):
            return True
        root, offset = resolve(self.source, name)
        nbytes = _nbytes(self.source.buffers[root])
        return (
            offset == 0 and nbytes % ALIGNMENT == 0 and _nbytes(self.source.buffers[name]) == nbytes
        )

    def _constant(self, name: str) -> bool:
        return resolve(self.source, name)[0] in self.source.constants

    def _together(self) -> set[str]:
        """Storage that lies request behind request: inputs and outputs that can, and what operators
        on several requests touch."""
        ports = [n for n in (*self.source.inputs, *self.source.outputs) if self._stacks(n)]
        pairs = zip(self.source.operators, self.wide, strict=True)
        names = [name for operator, (count, _) in pairs if count > 1 for name in operator.args]
        return {resolve(self.source, n)[0] for n in (*ports, *names) if not self._constant(n)}

    # --- the new program

    def expand(self, stretch_bytes: int) -> Program:
        out = self.out
        for name in self.source.inputs:
            out.inputs.append(self._input(name))
        for stretch in self._stretches(stretch_bytes):
            self._run(stretch)
        for name in self.source.outputs:
            out.outputs.append(self._output(name))
        return out

    def _stretches(self, nbytes_max: int) -> Iterator[range]:
        """Operators that a request runs through before the next one does."""
        begin, total = 0, 0
        for place, operator in enumerate(self.source.operators):
            constants = [name for name in operator.args if self._constant(name)]
            nbytes = sum(_nbytes(self.source.buffers[name]) for name in constants)
            barrier = self.wide[place][0] > 1 or self.wide[begin][0] > 1
            if place > begin and (barrier or total + nbytes > nbytes_max):
                yield range(begin, place)
                begin, total = place, 0
            total += nbytes
        if self.source.operators:
            yield range(begin, len(self.source.operators))

    def _run(self, stretch: range) -> None:
        count = self.wide[stretch.start][0]
        for first in range(0, self.requests, count):
            for place in stretch:
                operator = self.source.operators[place]
                args = tuple(self._of(name, first) for name in operator.args)
                kernel = self.wide[place][1]
                flops = operator.flops * count
                self.out.operators.append(
                    replace(operator, kernel=kernel, args=args, flops=flops, choices=(), wide=None)
                )

    def _of(self, name: str, request: int) -> str:
        """The buffer that `name` is for one request (and those that follow it there)."""
        if self._constant(name):
            root, _ = resolve(self.source, name)
            self.out.buffers[name] = self.source.buffers[name]
            return name if name == root else self._constant_view(name)
        made = f"{name}@{request}"
        if made in self.out.buffers:
            return made
        root, offset = resolve(self.source, name)
        buffer = self.source.buffers[name]
        base, at = f"{root}@{request}", offset
        if root in self.whole:
            base, at = self._stack(root), offset + request * _nbytes(self.source.buffers[root])
        elif base not in self.out.buffers:
            self.out.buffers[base] = self.source.buffers[root]
        if made != base:
            elements = at // np.dtype(buffer.dtype).itemsize
            self.out.buffers[made] = Buffer(buffer.shape, buffer.dtype, base=base, offset=elements)
        return made

    def _constant_view(self, name: str) -> str:
        base = self.source.buffers[name].base
        while base is not None:
            self.out.buffers[base] = self.source.buffers[base]
            base = self.source.buffers[base].base
        return name

    def _stack(self, root: str) -> str:
        """The buffer with `root` of all requests."""
        name = f"{root}@all"
        if name not in self.out.buffers:
            one = self.source.buffers[root]
            self.out.buffers[name] = replace(one, shape=(self.requests, *one.shape))
        return name

    def _port(self, name: str) -> str:
        buffer = self.source.buffers[name]
        made = f"{name}@port"
        self.out.buffers[made] = Buffer((self.requests, *buffer.shape), buffer.dtype)
        return made

    def _input(self, name: str) -> str:
        if name in self.whole:
            return self._stack(name)
        port = self._port(name)
        args = tuple(self._of(name, request) for request in range(self.requests))
        kernel = _split_kernel(self.source.buffers[name], self.requests)
        operator = Operator(f"split {name}", "layout", kernel, (port, *args), self.requests)
        self.out.operators.append(operator)
        return port

    def _output(self, name: str) -> str:
        if self._stacks(name):
            return self._stack(resolve(self.source, name)[0])
        port = self._port(name)
        args = tuple(self._of(name, request) for request in range(self.requests))
        kernel = _join_kernel(self.source.buffers[name], self.requests)
        self.out.operators.append(Operator(f"join {name}", "layout", kernel, (*args, port)))
        return port


def _split_kernel(one: Buffer, requests: int) -> Kernel:
    """Parameters: `requests` rows; then each row."""
    size = int(np.prod(one.shape, dtype=np.int64))
    with _emitter("split", one, requests) as e:
        stacked = e.param("stacked", (requests, size), one.dtype)
        parts = [e.param(f"part{i}", (size,), one.dtype) for i in range(requests)]
        for number, part in enumerate(parts):
            with e.serial(size) as i:
                T.buffer_store(part, stacked[number, i], [i])
    return e.kernel()


def _join_kernel(one: Buffer, requests: int) -> Kernel:
    """Parameters: each of `requests` rows; then all."""
    size = int(np.prod(one.shape, dtype=np.int64))
    with _emitter("join", one, requests) as e:
        parts = [e.param(f"part{i}", (size,), one.dtype) for i in range(requests)]
        stacked = e.param("stacked", (requests, size), one.dtype)
        for number, part in enumerate(parts):
            with e.serial(size) as i:
                T.buffer_store(stacked, part[i], [number, i])
    return e.kernel()


def _emitter(way: str, one: Buffer, requests: int) -> Emitter:
    digest = hashlib.sha256(repr((one.shape, one.dtype, requests)).encode()).hexdigest()[:12]
    return Emitter(f"{way}_{digest}", 1)


def _nbytes(buffer: Buffer) -> int:
    return int(np.prod(buffer.shape, dtype=np.int64)) * np.dtype(buffer.dtype).itemsize


def sizes(texts: Sequence[int]) -> tuple[int, ...]:
    """Batch sizes in order. Raises UserError unless 1 is among them and none is too large."""
    ordered = tuple(sorted(set(texts)))
    if not ordered or ordered[0] != 1 or ordered[-1] > BATCH_MAX:
        raise UserError(f"batch sizes are 1 and others up to {BATCH_MAX}, not {list(texts)}")
    return ordered
