"""The lanes of a machine, from their owner's side: start, order, listen, bury, restart.

The pool speaks the scheduler's language: it takes Launches and returns events. It has one file
descriptor to wait on, readable whenever `poll` has something to say, and no threads.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import msgspec

from tenantdl.errors import ExecutionError, UserError
from tenantdl.exec.lane import LaneSetup, LaneTenant
from tenantdl.exec.lane_memory import Mapping, Slots, TenantLayout
from tenantdl.exec.lane_wire import CHANNEL_BYTES, CORES_MAX, Channel, Kind, Order, Report
from tenantdl.ids import LaneId, RequestId
from tenantdl.sched.config import LaneSpec
from tenantdl.sched.messages import (
    BlockFailed,
    BlockFinished,
    Event,
    LaneLost,
    LaneReady,
    Launch,
    LaunchId,
    LaunchStarted,
)
from tenantdl.units import SECOND, US, Ns

_log = logging.getLogger(__name__)

BACKEND = "tenantdl.exec.lane_backend"
# Enough for the owner to place the next order after a lane has fallen idle; then the core is free.
SPIN = Ns(50 * US)
# A lane that dies again and again is restarted after 0.1, 0.2, 0.4 … s.
_RESTART_FIRST, _RESTART_LAST = Ns(SECOND // 10), Ns(10 * SECOND)
_STARTS_MAX = 3
_LOAD_MAX = Ns(300 * SECOND)
_STOP_S = 2.0


class Address(NamedTuple):
    """Where a request's program, and its slot, are: indexes that the lanes know."""

    program: int
    slot: int


@dataclass(slots=True)
class _Lane:
    """`moved`: when it was last seen to be idle, loading, or past another block."""

    spec: LaneSpec
    process: subprocess.Popen[bytes]
    pidfd: int
    bell: int
    mapping: Mapping
    channel: Channel
    since: Ns
    moved: Ns
    ready: bool = False
    beat: int = 0


class LanePool:
    """All lanes of one machine. Not thread-safe; times are of the caller's monotonic clock."""

    def __init__(
        self,
        lanes: Sequence[LaneSpec],
        tenants: Sequence[TenantLayout],
        *,
        hang: Ns,
        backend: str = BACKEND,
    ) -> None:
        """Create the shared memory; `start` starts the processes. `hang`: how long a lane may be
        busy with one block. Raises UserError for more cores than orders can name."""
        self._specs = {spec.lane: spec for spec in lanes}
        self._machine = tuple(core for spec in lanes for core in spec.cores)
        if len(self._machine) > CORES_MAX:
            raise UserError(f"{len(self._machine)} cores to serve on; at most {CORES_MAX}")
        self._layouts = tuple(tenants)
        self._slot_maps = [Mapping.create("slots", t.slots_bytes) for t in tenants]
        self._arena_maps = [Mapping.create("arenas", t.arenas_bytes) for t in tenants]
        self.slots = [Slots(t, m.memory) for t, m in zip(tenants, self._slot_maps, strict=True)]
        self._hang = hang
        self._backend = backend
        self._lanes: dict[LaneId, _Lane] = {}
        self._down: dict[LaneId, Ns] = {}
        self._failures = dict.fromkeys(self._specs, 0)
        self._proven: set[LaneId] = set()
        self._backlog = False
        self._doorbell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._epoll = select.epoll()
        self._epoll.register(self._doorbell, select.EPOLLIN)
        self._busy: dict[LaneId, int] = dict.fromkeys(self._specs, 0)

    def fileno(self) -> int:
        """Readable when `poll` should be called."""
        return self._epoll.fileno()

    def pids(self) -> dict[LaneId, int]:
        """Process ids of the living lanes."""
        return {lane: state.process.pid for lane, state in self._lanes.items()}

    def start(self, now: Ns) -> None:
        """Start every lane; each reports LaneReady once it has loaded its models."""
        for lane in self._specs:
            self._spawn(lane, now)

    def launch(self, command: Launch, address: Address) -> None:
        """Hand `command` to its lane. A lane that has just died loses it: LaneLost follows."""
        lane = self._lanes.get(command.lane)
        if lane is None:
            return
        lane.channel.post(
            Order(
                command.launch,
                command.request,
                address.program,
                command.arena,
                address.slot,
                command.begin,
                command.ends,
                command.preempt,
                sum(1 << self._machine.index(core) for core in command.cores),
                command.variant,
            )
        )
        self._busy[command.lane] = command.launch
        # Always: a lane that looked a moment ago may have gone to sleep since its last report.
        os.eventfd_write(lane.bell, 1)

    def set_backlog(self, more: bool) -> None:
        """Tell the lanes whether there is more work than is under way; if not, they report the
        near end of a launch without waking anyone."""
        if more != self._backlog:
            self._backlog = more
            for lane in self._lanes.values():
                lane.channel.set_backlog(more)

    def poll(self, now: Ns) -> list[Event]:
        """What the lanes have reported, in order; and the loss of those that died.

        Raises ExecutionError for a lane that dies every time before it is ready for the first time.
        """
        events: list[Event] = []
        # Who is dead is found out first: what its ring holds then is the last it said.
        stirring = {fd for fd, _ in self._epoll.poll(0)}
        if self._doorbell in stirring:
            os.eventfd_read(self._doorbell)
        for number, lane in list(self._lanes.items()):
            events += [self._event(number, lane, report) for report in lane.channel.drain()]
            if lane.pidfd in stirring:
                self._bury(number, lane, now)
                events.append(LaneLost(number))
        return events

    def watch(self, now: Ns) -> Ns:
        """Kill lanes that hang, restart those that are due; when to call again."""
        for number, lane in self._lanes.items():
            beat = lane.channel.beat
            if beat != lane.beat or not (lane.ready and self._busy[number]):
                lane.beat, lane.moved = beat, now
            limit = self._hang if lane.ready else _LOAD_MAX
            if now - (lane.moved if lane.ready else lane.since) > limit:
                _log.error("lane %d is stuck: killed", number)
                lane.process.kill()
        for number, due in list(self._down.items()):
            if due <= now:
                del self._down[number]
                self._spawn(number, now)
        return Ns(now + min([self._hang // 4, *(due - now for due in self._down.values())]))

    def close(self) -> None:
        """Stop all lanes: ask, then kill. Idempotent."""
        lanes, self._lanes = list(self._lanes.values()), {}
        for lane in lanes:
            if lane.process.stdin:
                lane.process.stdin.close()
        for lane in lanes:
            try:
                lane.process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                lane.process.kill()
                lane.process.wait()
            self._release(lane)
        if not self._epoll.closed:
            self._epoll.close()
            os.close(self._doorbell)
            for mapping in (*self._slot_maps, *self._arena_maps):
                mapping.close()

    def _spawn(self, number: LaneId, now: Ns) -> None:
        spec = self._specs[number]
        mapping = Mapping.create("channel", CHANNEL_BYTES)
        bell = os.eventfd(0, os.EFD_CLOEXEC)
        tenants = tuple(
            LaneTenant(layout, slots.fd, arenas.fd)
            for layout, slots, arenas in zip(
                self._layouts, self._slot_maps, self._arena_maps, strict=True
            )
        )
        setup = LaneSetup(
            lane=number,
            cores=spec.cores,
            machine=self._machine,
            backend=self._backend,
            spin_ns=SPIN,
            channel_fd=mapping.fd,
            bell_fd=bell,
            doorbell_fd=self._doorbell,
            tenants=tenants,
        )
        told = os.memfd_create("tenantdl-setup", os.MFD_CLOEXEC)
        os.write(told, msgspec.json.encode(setup))
        memory = [fd for tenant in tenants for fd in (tenant.slots_fd, tenant.arenas_fd)]
        process = subprocess.Popen(
            [sys.executable, "-m", "tenantdl.exec.lane", str(told)],
            stdin=subprocess.PIPE,  # never written to: the lane sees it close when we are gone
            pass_fds=[told, mapping.fd, bell, self._doorbell, *memory],
            env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
            start_new_session=True,  # Ctrl-C is for the daemon, which stops its lanes in order
        )
        os.close(told)
        pidfd = os.pidfd_open(process.pid)
        self._epoll.register(pidfd, select.EPOLLIN)
        channel = Channel(mapping.memory)
        channel.set_backlog(self._backlog)
        self._lanes[number] = _Lane(spec, process, pidfd, bell, mapping, channel, now, now)
        self._busy[number] = 0

    def _bury(self, number: LaneId, lane: _Lane, now: Ns) -> None:
        del self._lanes[number]
        self._release(lane)
        # A lane that had worked for a while starts afresh.
        failures = self._failures[number] = (
            0 if lane.ready and now - lane.since > _RESTART_LAST else self._failures[number] + 1
        )
        wait = min(_RESTART_FIRST * 2 ** max(0, failures - 1), _RESTART_LAST)
        self._down[number] = Ns(now + wait)
        code = lane.process.wait()
        cause = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        if failures >= _STARTS_MAX and number not in self._proven:
            raise ExecutionError(
                f"lane {number} does not start ({cause}); its last words are above"
            )
        _log.error("lane %d died (%s); restart in %.1f s", number, cause, wait / SECOND)

    def _release(self, lane: _Lane) -> None:
        self._epoll.unregister(lane.pidfd)
        os.close(lane.pidfd)
        os.close(lane.bell)
        lane.mapping.close()
        if lane.process.stdin:
            lane.process.stdin.close()

    def _event(self, number: LaneId, lane: _Lane, report: Report) -> Event:
        launch, request = LaunchId(report.launch), RequestId(report.request)
        follows = LaunchId(report.next) if report.next else None
        if report.kind != Kind.STARTED and not follows and self._busy[number] == report.launch:
            self._busy[number] = 0
        match report.kind:
            case Kind.READY:
                lane.ready = True
                self._proven.add(number)
                return LaneReady(number)
            case Kind.STARTED:
                return LaunchStarted(number, launch)
            case Kind.FAILED:
                return BlockFailed(number, launch, request, follows)
            case Kind.FINISHED:
                return BlockFinished(
                    number,
                    launch,
                    request,
                    report.begin,
                    report.end,
                    Ns(report.elapsed),
                    Ns(report.at),
                    follows,
                )
            case _:
                raise TypeError(f"not a report: {report!r}")
