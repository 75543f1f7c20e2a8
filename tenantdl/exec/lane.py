"""A lane: a process that runs blocks as its owner orders. No locks, no clock but its own, no
decision but one: take up the newest order at the end of a block.

Its thread stays on the lane's first core. Every order says on which cores of the machine its blocks
run; the lane's own are always among them, and those of idle neighbours may be: a group grows and
shrinks between orders. Helpers on the other cores are started when first needed, then sleep.

Forked from the `template`, with every program loaded. Between orders the lane spins for a moment,
then sleeps until its bell (an eventfd) rings. It ends when its owner does, or when it is told to
make room for a successor.
"""

from __future__ import annotations

import logging
import os
import select
import time
from collections.abc import Mapping

from tenantdl.errors import ExecutionError
from tenantdl.exec.lane_wire import Channel, Kind, Order, Report
from tenantdl.exec.programs import Backend, Loaded
from tenantdl.exec.template_wire import Spawn

_log = logging.getLogger(__name__)


class OwnerGone(Exception):
    """Nobody reads the reports any more."""


class LaneProcess:
    """The loop. `serve` returns when the owner has gone or wants no more of this lane."""

    def __init__(
        self,
        spec: Spawn,
        backend: Backend,
        programs: Mapping[int, Loaded],
        channel: Channel,
        *,
        bell_fd: int,
        doorbell_fd: int,
        alive_fd: int,
    ) -> None:
        """`bell_fd` wakes the lane, `doorbell_fd` its owner, whose life `alive_fd` tells of."""
        others = (core for core in spec.machine if core not in spec.cores)
        backend.pin([*spec.cores, *others])
        backend.choose(spec.cores)
        self._spec = spec
        self._backend = backend
        self._chosen = 0
        self._programs = programs
        self._channel = channel
        self._doorbell_fd = doorbell_fd
        self._alive_fd = alive_fd
        self._poll = select.poll()
        self._poll.register(bell_fd, select.POLLIN)
        self._poll.register(alive_fd, select.POLLIN)

    def serve(self) -> None:
        """Obey orders until the owner closes its end."""
        self._channel.live()
        self._tell(Report(Kind.READY), ring=True)
        while self._wait():
            self._channel.live()
            order = self._channel.take(between=False)
            if order is not None and order.ends:
                # An owner with more work places the next order now. Longer launches are near their
                # end only later, and say so then.
                ring = len(order.ends) == 1 and self._channel.backlog
                self._tell(Report(Kind.STARTED, order.launch), ring=ring)
            while order is not None:
                if not order.ends:
                    self._tell(Report(Kind.YIELDED), ring=True)
                    return
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
            goes_on = 0 if through else order.launch
            if follows:
                goes_on = follows.launch if follows.ends else 0
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
            machine = self._spec.machine
            self._backend.choose([core for i, core in enumerate(machine) if mask >> i & 1])
            self._chosen = mask

    def _block(self, order: Order, begin: int, end: int) -> bool:
        """Run one block; whether it went well."""
        program = self._programs[order.program]
        runner = program.runners[order.arena]
        slots, slot = program.slots, order.slots[0]
        # The plan for one request takes whatever was written for it; others go row by row.
        alone = order.member == program.index
        try:
            if begin == 0 and alone:
                runner.set_inputs(slots.inputs(slot, program.index))
            elif begin == 0:
                for row, each in enumerate(order.slots):
                    runner.gather(row, slots.inputs(each, order.member))
            elif slots.progress(slot) != begin:
                raise ExecutionError(f"segment {begin} follows on {slots.progress(slot)}")
            runner.run_block(begin, end, order.variant)
            if end == runner.segment_count:
                for row, each in enumerate(order.slots):
                    results = runner.outputs() if alone else runner.scatter(row)
                    for name, view in slots.outputs(each, order.member).items():
                        view[...] = results[name]
            slots.set_progress(slot, end)
        except Exception:  # whatever a model's kernels raise, it must not take the lane down
            slots.set_progress(slot, 0)
            _log.exception("lane %d: request %d failed", self._spec.lane, order.request)
            return False
        return True

    def _tell(self, report: Report, *, ring: bool) -> None:
        while self._channel.full():
            os.eventfd_write(self._doorbell_fd, 1)
            if select.select([self._alive_fd], [], [], 0.001)[0]:
                raise OwnerGone
        self._channel.report(report)
        if ring:
            os.eventfd_write(self._doorbell_fd, 1)

    def _wait(self) -> bool:
        """Until there is an order to take; False when the owner has gone."""
        channel = self._channel
        until = time.monotonic_ns() + self._spec.spin_ns
        while not channel.waiting:
            if time.monotonic_ns() < until:
                os.sched_yield()  # the order may come from a process on this core
                continue
            for fd, _ in self._poll.poll():
                if fd == self._alive_fd:
                    return False
                os.eventfd_read(fd)
                channel.live()
                until = time.monotonic_ns() + self._spec.spin_ns  # an order may be on its way
        return True
