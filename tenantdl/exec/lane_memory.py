"""Memory that the daemon and its lanes share: where tensors and activations lie. Sizes in bytes.

A *program* is one plan of one tenant's model. It has `arenas` activation arenas, which every lane
maps, so that a parked request survives its lane and can go on in another. A request's inputs and
outputs lie in a *slot*: the daemon writes inputs there, the lane that begins the request copies
them into the arena, the lane that finishes it copies the outputs back.
"""

from __future__ import annotations

import contextlib
import mmap
import os
from collections.abc import Mapping as Mapped
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from tenantdl.bundle.manifest import ALIGNMENT, Plan

Array = NDArray[Any]

_PAGE = 4096
_HUGE_PAGE = 2 * 1024**2


class Mapping:
    """A shared mapping: `create` on the owner's side, `attach` with its file descriptor."""

    def __init__(self, fd: int, nbytes: int) -> None:
        self.fd = fd
        self.memory = mmap.mmap(fd, nbytes)
        if hasattr(mmap, "MADV_HUGEPAGE"):
            # Where the system has no huge pages for shared memory, ordinary ones serve.
            with contextlib.suppress(OSError):
                self.memory.madvise(mmap.MADV_HUGEPAGE)

    @classmethod
    def create(cls, name: str, nbytes: int) -> Mapping:
        """Zeroed anonymous memory; it vanishes with its last user."""
        fd = os.memfd_create(f"tenantdl-{name}", os.MFD_CLOEXEC)
        os.ftruncate(fd, nbytes)
        return cls(fd, nbytes)

    def close(self) -> None:
        """Give the descriptor back; the memory itself lives as long as views of it do."""
        os.close(self.fd)


class TensorPlace(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A tensor inside a slot."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int


class ProgramLayout(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One plan of a tenant's model. `arena_offsets`: in the tenant's arena mapping."""

    plan: int
    inputs: tuple[TensorPlace, ...]
    outputs: tuple[TensorPlace, ...]
    arena_bytes: int
    arena_offsets: tuple[int, ...]


class TenantLayout(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A tenant's two mappings: `slots` slots of `slot_bytes`, and `arenas_bytes` of arenas."""

    bundle: str
    slots: int
    slot_bytes: int
    arenas_bytes: int
    programs: tuple[ProgramLayout, ...]

    @property
    def slots_bytes(self) -> int:
        """Size of the mapping of slots."""
        return self.slots * self.slot_bytes


def lay_out(bundle: str, plans: Sequence[Plan], slots: int, arenas: int) -> TenantLayout:
    """Place `slots` slots that fit every plan, and `arenas` arenas for each plan (its own: a plan
    relies on the zeros that it never writes)."""
    programs: list[ProgramLayout] = []
    slot_bytes, arenas_bytes = 0, 0
    for number, plan in enumerate(plans):
        places: list[TensorPlace] = []
        offset = ALIGNMENT  # the slot's own words come first
        for tensor in (*plan.inputs, *plan.outputs):
            place = TensorPlace(tensor.name, tensor.dtype, tensor.shape, offset)
            places.append(place)
            offset = _up(offset + _nbytes(place), ALIGNMENT)
        slot_bytes = max(slot_bytes, _up(offset, _PAGE))
        each = _up(max(plan.arena_bytes, 1), _HUGE_PAGE)
        offsets = tuple(arenas_bytes + index * each for index in range(arenas))
        arenas_bytes += arenas * each
        inputs, outputs = places[: len(plan.inputs)], places[len(plan.inputs) :]
        programs.append(
            ProgramLayout(number, tuple(inputs), tuple(outputs), plan.arena_bytes, offsets)
        )
    return TenantLayout(bundle, slots, slot_bytes, arenas_bytes, tuple(programs))


class Slots:
    """The slots of one tenant, from either side."""

    def __init__(self, layout: TenantLayout, memory: mmap.mmap) -> None:
        self._layout = layout
        self._bytes = np.frombuffer(memory, np.uint8)

    def progress(self, slot: int) -> NDArray[np.uint64]:
        """One word: how many segments of the request have run. Lanes keep it."""
        start = slot * self._layout.slot_bytes
        return self._bytes[start : start + 8].view(np.uint64)

    def inputs(self, slot: int, program: int) -> dict[str, Array]:
        """Views of the inputs, by name."""
        return self._views(slot, self._layout.programs[program].inputs)

    def outputs(self, slot: int, program: int) -> dict[str, Array]:
        """Views of the outputs, by name."""
        return self._views(slot, self._layout.programs[program].outputs)

    def write(self, slot: int, program: int, inputs: Mapped[str, Array]) -> None:
        """Copy `inputs` (checked: names, dtypes and shapes of the program) into the slot."""
        for name, view in self.inputs(slot, program).items():
            view[...] = inputs[name]

    def _views(self, slot: int, places: Sequence[TensorPlace]) -> dict[str, Array]:
        base = slot * self._layout.slot_bytes
        return {
            place.name: self._bytes[base + place.offset : base + place.offset + _nbytes(place)]
            .view(np.dtype(place.dtype))
            .reshape(place.shape)
            for place in places
        }


def _nbytes(place: TensorPlace) -> int:
    size = np.dtype(place.dtype).itemsize
    for extent in place.shape:
        size *= extent
    return size


def _up(value: int, to: int) -> int:
    return -(-value // to) * to
