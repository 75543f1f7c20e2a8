"""Programs as a lane's process has them: runners bound to the memory that it shares."""

from __future__ import annotations

from collections.abc import Mapping as Mapped
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from tenantdl.exec.lane_memory import Array, Mapping, Slots, touch
from tenantdl.exec.template_wire import Load
from tenantdl.ids import CoreId


class Program(Protocol):
    """A plan bound to one arena (`tenantdl.exec.runner.Runner`)."""

    @property
    def segment_count(self) -> int:
        """Number of segments."""

    def set_inputs(self, inputs: Mapped[str, Array]) -> None:
        """Copy the inputs into the arena."""

    def run_block(self, begin: int, end: int, variant: int = 0) -> None:
        """Run segments [begin, end) in this variant."""

    def outputs(self) -> Mapped[str, Array]:
        """The outputs of a finished run."""

    def gather(self, row: int, inputs: Mapped[str, Array]) -> None:
        """Copy the inputs of one request into the arena of a plan for several, as its `row`-th."""

    def scatter(self, row: int) -> Mapped[str, Array]:
        """What the `row`-th request gets of a finished run's outputs."""


class Backend(Protocol):
    """The module that programs come from."""

    def pin(self, cores: Sequence[CoreId]) -> None:
        """Keep this thread on the first of `cores`, which programs may use from now on."""

    def choose(self, cores: Sequence[CoreId]) -> None:
        """Blocks to come run on these cores, this thread's among them."""

    def rest(self) -> None:
        """No block follows soon: helpers leave their cores to others."""

    def open_programs(
        self, bundle: str, plans: Sequence[tuple[int, Sequence[memoryview]]]
    ) -> list[list[Program]]:
        """For each (plan number, its arenas) of `bundle`: a program for every arena. Called on a
        thread of its own, in a process that will be forked: it must leave no threads behind."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A program: `runners[arena]`, and the slots of its model, where it has number `index`."""

    runners: list[Program]
    slots: Slots
    index: int


def load(command: Load, slots_fd: int, arenas_fd: int, backend: Backend) -> list[Loaded]:
    """Open all programs of a layout. Raises what the backend raises."""
    layout = command.layout
    slots = Slots(layout, Mapping(slots_fd, layout.slots_bytes).memory)
    arenas = memoryview(Mapping(arenas_fd, layout.arenas_bytes).memory)
    plans = [
        (program.plan, [arenas[at : at + program.arena_bytes] for at in program.arena_offsets])
        for program in layout.programs
    ]
    if command.fresh:
        # What is used first: a request should not wait for the system to find memory.
        slots.touch(layout.slots - 1)
        for program in layout.programs:
            touch(arenas, program.arena_offsets[:1], program.arena_bytes)
    opened = backend.open_programs(layout.bundle, plans)
    return [Loaded(runners, slots, index) for index, runners in enumerate(opened)]
