"""A lane: a process that runs blocks as its owner orders. No locks, no clock but its own, no
decision but one: take up the newest order at the end of a block.

Its thread stays on the lane's first core. Every order says on which cores of the machine its blocks
run; the lane's own are always among them, and those of idle neighbours may be: a group grows and
shrinks between orders. Helpers on the other cores are started when first needed, then sleep.

Started by `lane_pool` as `python -m tenantdl.exec.lane FD`, where its setup is, as JSON. Standard
input stays open for as long as the owner lives. Between orders the lane spins for a moment, then
sleeps until its bell (an eventfd) rings.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import select
import sys
import time
from collections.abc import Mapping as Mapped
from collections.abc import Sequence
from typing import Any, Protocol

import msgspec

from tenantdl.errors import ExecutionError
from tenantdl.exec.lane_memory import Array, Mapping, Slots, TenantLayout
from tenantdl.exec.lane_wire import CHANNEL_BYTES, Channel, Kind, Order, Report
from tenantdl.ids import CoreId

_log = logging.getLogger(__name__)


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


class Backend(Protocol):
    """The module that a lane gets its programs from."""

    def verify(self, bundle: str) -> None:
        """Check a bundle before any lane maps it. Raises UserError."""

    def pin(self, cores: Sequence[CoreId]) -> None:
        """Keep this thread on the first of `cores`, which programs may use from now on."""

    def choose(self, cores: Sequence[CoreId]) -> None:
        """Blocks to come run on these cores, this thread's among them."""

    def rest(self) -> None:
        """No block follows soon: helpers leave their cores to others."""

    def open_programs(
        self, bundle: str, plans: Sequence[tuple[int, Sequence[memoryview]]]
    ) -> list[list[Program]]:
        """For each (plan number, its arenas) of `bundle`: a program for every arena."""


class LaneTenant(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A tenant as the lane maps it: layout and file descriptors."""

    layout: TenantLayout
    slots_fd: int
    arenas_fd: int


class LaneSetup(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All that a lane process is told. `cores` are its own, `machine` those of all lanes; `bell_fd`
    wakes the lane, `doorbell_fd` its owner. `programs` are numbered through all tenants."""

    lane: int
    cores: tuple[CoreId, ...]
    machine: tuple[CoreId, ...]
    backend: str
    spin_ns: int
    channel_fd: int
    bell_fd: int
    doorbell_fd: int
    tenants: tuple[LaneTenant, ...]


class _OwnerGone(Exception):
    """Nobody reads the reports any more."""


class _Loaded:
    """A program in this lane: `runners[arena]`, and the slots of its tenant."""

    def __init__(self, runners: list[Program], slots: Slots, index: int) -> None:
        self.runners = runners
        self.slots = slots
        self.index = index


class LaneProcess:
    """The loop. `serve` returns when the owner has gone."""

    def __init__(self, setup: LaneSetup, alive_fd: int) -> None:
        backend: Any = importlib.import_module(setup.backend)
        backend.pin([*setup.cores, *(core for core in setup.machine if core not in setup.cores)])
        backend.choose(setup.cores)
        self._setup = setup
        self._backend: Backend = backend
        self._chosen = 0
        self._programs = _load(setup, backend)
        self._channel = Channel(Mapping(setup.channel_fd, CHANNEL_BYTES).memory)
        self._poll = select.poll()
        self._poll.register(setup.bell_fd, select.POLLIN)
        self._poll.register(alive_fd, select.POLLIN)
        self._alive_fd = alive_fd

    def serve(self) -> None:
        """Obey orders until the owner closes its end."""
        self._tell(Report(Kind.READY), ring=True)
        while self._wait():
            order = self._channel.take(between=False)
            if order is not None:
                # Longer launches are near their end only later, and say so then.
                self._tell(Report(Kind.STARTED, order.launch), ring=len(order.ends) == 1)
            while order is not None:
                order = self._run(order)

    def _run(self, order: Order) -> Order | None:
        """Run `order` block by block; the order to go on with."""
        channel, begin, last = self._channel, order.begin, len(order.ends) - 1
        self._choose(order.cores)
        started = time.monotonic_ns()
        for index, end in enumerate(order.ends):
            failed = not self._block(order, begin, end)
            finished = time.monotonic_ns()
            channel.live()
            through = failed or index == last
            follows = channel.take(between=not through)
            goes_on = follows.launch if follows else 0 if through else order.launch
            if not goes_on:
                self._backend.rest()
            kind = Kind.FAILED if failed else Kind.FINISHED
            elapsed = finished - started
            self._tell(
                Report(kind, order.launch, order.request, begin, end, elapsed, finished, goes_on),
                # In a launch's last block, an owner with more work has to know that it is near.
                ring=through or follows is not None or (index == last - 1 and channel.backlog),
            )
            if through or follows is not None:
                return follows
            started, begin = finished, end
        return None

    def _choose(self, mask: int) -> None:
        if mask != self._chosen:
            machine = self._setup.machine
            self._backend.choose([core for i, core in enumerate(machine) if mask >> i & 1])
            self._chosen = mask

    def _block(self, order: Order, begin: int, end: int) -> bool:
        """Run one block; whether it went well."""
        program = self._programs[order.program]
        runner = program.runners[order.arena]
        slots, slot = program.slots, order.slot
        try:
            if begin == 0:
                runner.set_inputs(slots.inputs(slot, program.index))
            elif slots.progress(slot) != begin:
                raise ExecutionError(f"segment {begin} follows on {slots.progress(slot)}")
            runner.run_block(begin, end, order.variant)
            if end == runner.segment_count:
                results = runner.outputs()
                for name, view in slots.outputs(slot, program.index).items():
                    view[...] = results[name]
            slots.set_progress(slot, end)
        except Exception:  # whatever a model's kernels raise, it must not take the lane down
            slots.set_progress(slot, 0)
            _log.exception("lane %d: request %d failed", self._setup.lane, order.request)
            return False
        return True

    def _tell(self, report: Report, *, ring: bool) -> None:
        while self._channel.full():
            os.eventfd_write(self._setup.doorbell_fd, 1)
            if select.select([self._alive_fd], [], [], 0.001)[0]:
                raise _OwnerGone
        self._channel.report(report)
        if ring:
            os.eventfd_write(self._setup.doorbell_fd, 1)

    def _wait(self) -> bool:
        """Until there is an order to take; False when the owner has gone."""
        channel = self._channel
        until = time.monotonic_ns() + self._setup.spin_ns
        while not channel.waiting:
            if time.monotonic_ns() < until:
                continue
            for fd, _ in self._poll.poll():
                if fd == self._alive_fd:
                    return False
                os.eventfd_read(fd)
        return True


def _load(setup: LaneSetup, backend: Backend) -> list[_Loaded]:
    loaded: list[_Loaded] = []
    for tenant in setup.tenants:
        layout = tenant.layout
        slots = Slots(layout, Mapping(tenant.slots_fd, layout.slots_bytes).memory)
        arenas = memoryview(Mapping(tenant.arenas_fd, layout.arenas_bytes).memory)
        plans = [
            (program.plan, [arenas[at : at + program.arena_bytes] for at in program.arena_offsets])
            for program in layout.programs
        ]
        for index, runners in enumerate(backend.open_programs(layout.bundle, plans)):
            loaded.append(_Loaded(runners, slots, index))
    return loaded


def main(argv: Sequence[str]) -> None:
    """Serve by the setup in the file descriptor that `argv[0]` names."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s")
    fd = int(argv[0])
    setup = msgspec.json.decode(os.pread(fd, os.fstat(fd).st_size, 0), type=LaneSetup)
    with contextlib.suppress(_OwnerGone):
        LaneProcess(setup, sys.stdin.fileno()).serve()


if __name__ == "__main__":
    main(sys.argv[1:])
