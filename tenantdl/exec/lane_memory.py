"""Memory that the daemon and its lanes share: where tensors and activations lie. Sizes in bytes.

A *program* is one plan of a model. It has `arenas` activation arenas, which every lane maps, so
that a parked request survives its lane and can go on in another. A request's inputs and outputs lie
in a *slot*: the daemon writes inputs there, the lane that begins the request copies them into the
arena, the lane that finishes it copies the outputs back.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterable, Sequence
from collections.abc import Mapping as Mapped
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from tenantdl.bundle.manifest import ALIGNMENT, Plan
from tenantdl.bundle.memory import HUGE_PAGE_BYTES

Array = NDArray[Any]

_PROGRESS = struct.Struct("<Q")
_PAGE = 4096


class Mapping:
    """A shared mapping: `create` on the owner's side, `attach` with its file descriptor."""

    def __init__(self, fd: int, nbytes: int) -> None:
        self.fd = fd
        self.memory = mmap.mmap(fd, nbytes)

    @classmethod
    def create(cls, name: str, nbytes: int) -> Mapping:
        """Zeroed anonymous memory; it vanishes with its last user. Raises OSError where there is
        none to be had."""
        fd = os.memfd_create(f"tenantdl-{name}", os.MFD_CLOEXEC)
        try:
            os.ftruncate(fd, nbytes)
            return cls(fd, nbytes)
        except OSError:
            os.close(fd)
            raise

    def close(self) -> None:
        """Give the descriptor back; the memory itself lives as long as views of it do."""
        os.close(self.fd)


def touch(memory: memoryview, offsets: Iterable[int], nbytes: int) -> None:
    """Have the system find memory for what is zero so far and nobody uses."""
    for offset in offsets:
        for page in range(offset, offset + nbytes, _PAGE):
            memory[page] = 0


class TensorPlace(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A tensor inside a slot."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int


class ProgramLayout(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One plan of a model. `arena_offsets`: in the model's arena mapping."""

    plan: int
    inputs: tuple[TensorPlace, ...]
    outputs: tuple[TensorPlace, ...]
    arena_bytes: int
    arena_offsets: tuple[int, ...]


class ModelLayout(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A model's two mappings: `slots` slots of `slot_bytes`, and `arenas_bytes` of arenas."""

    bundle: str
    slots: int
    slot_bytes: int
    arenas_bytes: int
    programs: tuple[ProgramLayout, ...]

    @property
    def slots_bytes(self) -> int:
        """Size of the mapping of slots."""
        return self.slots * self.slot_bytes


def lay_out(bundle: str, plans: Sequence[Plan], slots: int, arenas: int) -> ModelLayout:
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
        each = _up(max(plan.arena_bytes, 1), HUGE_PAGE_BYTES)
        offsets = tuple(arenas_bytes + index * each for index in range(arenas))
        arenas_bytes += arenas * each
        inputs, outputs = places[: len(plan.inputs)], places[len(plan.inputs) :]
        programs.append(
            ProgramLayout(number, tuple(inputs), tuple(outputs), plan.arena_bytes, offsets)
        )
    return ModelLayout(bundle, slots, slot_bytes, arenas_bytes, tuple(programs))


class Slots:
    """The slots of one model, from either side."""

    def __init__(self, layout: ModelLayout, memory: mmap.mmap) -> None:
        self._layout = layout
        self._memory = memory
        # Views are made once and kept: a slot is used again and again.
        self._made: dict[tuple[int, int, bool], dict[str, Array]] = {}

    def progress(self, slot: int) -> int:
        """How many segments of the slot's request have run. Lanes keep this."""
        return int(_PROGRESS.unpack_from(self._memory, slot * self._layout.slot_bytes)[0])

    def set_progress(self, slot: int, segments: int) -> None:
        """Note that `segments` segments of the slot's request have run."""
        _PROGRESS.pack_into(self._memory, slot * self._layout.slot_bytes, segments)

    def inputs(self, slot: int, program: int) -> dict[str, Array]:
        """Views of the inputs, by name."""
        return self._views(slot, program, inputs=True)

    def outputs(self, slot: int, program: int) -> dict[str, Array]:
        """Views of the outputs, by name."""
        return self._views(slot, program, inputs=False)

    def touch(self, slot: int) -> None:
        """Have the system find memory for a slot that nobody uses."""
        size = self._layout.slot_bytes
        touch(memoryview(self._memory), [slot * size], size)

    def write(self, slot: int, program: int, inputs: Mapped[str, Array]) -> None:
        """Copy `inputs` (checked: names and dtypes of the program, nothing larger than there) into
        the slot; what is shorter is followed by zeros."""
        for name, view in self.inputs(slot, program).items():
            array = inputs[name]
            if array.shape == view.shape:
                view[...] = array
            else:
                view[...] = 0
                view[tuple(slice(0, extent) for extent in array.shape)] = array

    def _views(self, slot: int, program: int, *, inputs: bool) -> dict[str, Array]:
        key = (slot, program, inputs)
        if key not in self._made:
            layout = self._layout.programs[program]
            base = slot * self._layout.slot_bytes
            self._made[key] = {
                place.name: np.frombuffer(
                    self._memory, place.dtype, _elements(place), base + place.offset
                ).reshape(place.shape)
                for place in (layout.inputs if inputs else layout.outputs)
            }
        return self._made[key]


def _elements(place: TensorPlace) -> int:
    count = 1
    for extent in place.shape:
        count *= extent
    return count


def _nbytes(place: TensorPlace) -> int:
    return _elements(place) * np.dtype(place.dtype).itemsize


def _up(value: int, to: int) -> int:
    return -(-value // to) * to
