"""The memory plan: where every buffer lies in the arena or in the weights file.

Lifetimes run from the first write to the last read, in operator order. Buffers are placed largest
first, each at the lowest offset that no living neighbour holds. Buffers with zero borders share
storage only with their like: a border that somebody else wrote would have to be cleared again.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from tenantdl.bundle.manifest import ALIGNMENT
from tenantdl.compile.graph import Array
from tenantdl.compile.operator import Buffer, Program


@dataclass(slots=True)
class _Slot:
    """Storage of one buffer, or of several alike ones with zero borders that never live at once."""

    nbytes: int
    spans: list[tuple[int, int]]
    offset: int = 0
    exclusive: bool = False


class Weights:
    """The weights file, filled by one program after the other: equal constants are stored once."""

    def __init__(self) -> None:
        self.arrays: list[tuple[int, Array]] = []
        self.nbytes = 0
        self._known: dict[tuple[str, bytes], int] = {}

    def place(self, program: Program) -> dict[str, int]:
        """Where the program's constants are, in the order of their first use, so that prefetching
        runs ahead usefully."""
        offsets: dict[str, int] = {}
        for operator in program.operators:
            for name in operator.args:
                root, _ = resolve(program, name)
                if root in program.constants and root not in offsets:
                    offsets[root] = self._add(root, program.constants[root])
        for name in program.buffers:
            root, offset = resolve(program, name)
            if root in offsets and name not in offsets:
                offsets[name] = offsets[root] + offset
        return offsets

    def _add(self, name: str, array: Array) -> int:
        # A name that starts with @ is a digest of its contents already.
        digest = b"" if name.startswith("@") else hashlib.sha256(array.tobytes()).digest()
        if (name, digest) not in self._known:
            self._known[name, digest] = self.nbytes
            self.arrays.append((self.nbytes, array))
            self.nbytes = _align(self.nbytes + array.nbytes)
        return self._known[name, digest]


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """Byte offsets of every buffer: `constants` in `weights`, all others in the arena."""

    arena: dict[str, int]
    arena_bytes: int
    constants: dict[str, int]
    weights: Weights


def plan_memory(program: Program, weights: Weights | None = None) -> MemoryPlan:
    """Place all buffers that the program's operators, inputs and outputs use; constants among what
    `weights` holds already."""
    spans = _lifetimes(program)
    slots: list[_Slot] = []
    slot_of: dict[str, _Slot] = {}
    alike: dict[tuple[object, ...], list[_Slot]] = {}
    for name in sorted(spans, key=lambda n: (-_nbytes(program.buffers[n]), spans[n], n)):
        buffer = program.buffers[name]
        if buffer.zeros:
            pool = alike.setdefault((buffer.shape, buffer.dtype, buffer.zeros), [])
            slot = next((s for s in pool if not _overlaps(s.spans, spans[name])), None)
            if slot is None:
                slot = _Slot(_nbytes(buffer), [], exclusive=True)
                pool.append(slot)
                slots.append(slot)
            slot.spans.append(spans[name])
        else:
            slot = _Slot(_nbytes(buffer), [spans[name]])
            slots.append(slot)
        slot_of[name] = slot
    total = _place(slots)
    arena = {name: slot.offset for name, slot in slot_of.items()}
    for name in program.buffers:
        root, offset = resolve(program, name)
        if root in arena and name not in arena:
            arena[name] = arena[root] + offset
    weights = Weights() if weights is None else weights
    return MemoryPlan(arena, total, weights.place(program), weights)


def resolve(program: Program, name: str) -> tuple[str, int]:
    """The root buffer behind a chain of views, and the byte offset into it."""
    offset = 0
    buffer = program.buffers[name]
    while buffer.base is not None:
        offset += buffer.offset * np.dtype(buffer.dtype).itemsize
        name = buffer.base
        buffer = program.buffers[name]
    return name, offset


def _lifetimes(program: Program) -> dict[str, tuple[int, int]]:
    """Root buffer → (first, last) operator that touches it. Constants are not among them."""
    spans: dict[str, tuple[int, int]] = {}

    def touch(name: str, at: int) -> None:
        root, _ = resolve(program, name)
        if root in program.constants:
            return
        first, last = spans.get(root, (at, at))
        spans[root] = (min(first, at), max(last, at))

    for name in program.inputs:
        touch(name, -1)
    for position, operator in enumerate(program.operators):
        for name in operator.args:
            touch(name, position)
    for name in program.outputs:
        touch(name, len(program.operators))
    return spans


def _overlaps(taken: list[tuple[int, int]], span: tuple[int, int]) -> bool:
    return any(span[0] <= last and first <= span[1] for first, last in taken)


def _place(slots: list[_Slot]) -> int:
    """Assign offsets; exclusive slots live for ever. Returns the arena's size."""
    placed: list[tuple[int, int, _Slot]] = []
    total = 0
    for slot in slots:
        first, last = _life(slot)
        rivals = [
            other
            for begin, end, other in placed
            if begin <= last and first <= end and _meet(slot, other)
        ]
        rivals.sort(key=lambda other: other.offset)
        offset = 0
        for other in rivals:
            if offset + slot.nbytes <= other.offset:
                break
            offset = max(offset, _align(other.offset + other.nbytes))
        slot.offset = offset
        placed.append((first, last, slot))
        total = max(total, offset + slot.nbytes)
    return _align(total)


def _life(slot: _Slot) -> tuple[int, int]:
    if slot.exclusive:
        return -1, 1 << 62
    return min(first for first, _ in slot.spans), max(last for _, last in slot.spans)


def _meet(slot: _Slot, other: _Slot) -> bool:
    """Whether two slots whose lives overlap are ever both in use."""
    if slot.exclusive or other.exclusive or len(slot.spans) == len(other.spans) == 1:
        return True
    return any(_overlaps(other.spans, span) for span in slot.spans)


def _nbytes(buffer: Buffer) -> int:
    size = int(np.prod(buffer.shape, dtype=np.int64)) * np.dtype(buffer.dtype).itemsize
    return max(size, 1)


def _align(offset: int) -> int:
    return -(-offset // ALIGNMENT) * ALIGNMENT
