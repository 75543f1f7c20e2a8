"""The lanes of a machine, from their owner's side: start, order, listen, bury, restart, replace.

The pool speaks the scheduler's language: it takes Launches and returns events. It has one file
descriptor to wait on, readable whenever `poll` has something to say, and no threads. Models come
and go while lanes run: a lane is then replaced by a successor that knows them, between two blocks,
of which the scheduler sees nothing.
"""

from __future__ import annotations

import logging
import os
import select
import signal
from collections.abc import Callable, Sequence

from tenantdl.errors import ExecutionError, UserError
from tenantdl.exec.endings import cause, exit_code, has_ended
from tenantdl.exec.lane_handle import Address, LaneHandle, order_of
from tenantdl.exec.lane_memory import Mapping, ModelLayout
from tenantdl.exec.lane_wire import CHANNEL_BYTES, CORES_MAX, YIELD, Channel, Kind
from tenantdl.exec.nursery import Change, Nursery
from tenantdl.exec.program_set import ProgramSet
from tenantdl.exec.template_wire import Spawn, Spawned
from tenantdl.ids import CoreId, LaneId
from tenantdl.sched.config import LaneSpec
from tenantdl.sched.messages import Event, LaneLost, LaneReady, Launch
from tenantdl.units import MS, SECOND, US, Ns

_log = logging.getLogger(__name__)

BACKEND = "tenantdl.exec.lane_backend"
# Enough for a request to be read that has begun to arrive (`stir`); then the core sleeps. Whoever
# wants the core meanwhile gets it: the lane yields.
SPIN = Ns(200 * US)
# A lane that dies again and again is restarted after 0.1, 0.2, 0.4 … s.
_RESTART_FIRST, _RESTART_LAST = Ns(SECOND // 10), Ns(10 * SECOND)
_STARTS_MAX, _START_MAX = 3, Ns(60 * SECOND)
_STOP_MS = 2000
# Lanes that are due may have to wait for what they are made from.
_WATCH_LEAST = 5 * MS


class LanePool:
    """All lanes of one machine. Not thread-safe; times are of the caller's monotonic clock."""

    def __init__(self, lanes: Sequence[LaneSpec], *, hang: Ns, backend: str = BACKEND) -> None:
        """`start` starts the processes. `hang`: how long a lane may be busy with one block, or
        silent when asked. Raises UserError for more cores than orders can name."""
        self._specs = {spec.lane: spec for spec in lanes}
        self._machine = tuple(core for spec in lanes for core in spec.cores)
        if len(self._machine) > CORES_MAX:
            raise UserError(f"{len(self._machine)} cores to serve on; at most {CORES_MAX}")
        self._hang = hang
        self._lanes: dict[LaneId, LaneHandle] = {}
        self._successor: LaneHandle | None = None
        self._retired: list[int] = []
        self._down: dict[LaneId, Ns] = {}
        self._failures = dict.fromkeys(self._specs, 0)
        self._proven: set[LaneId] = set()
        self._backlog = False
        self._last = lanes[0].lane
        self._doorbell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._epoll = select.epoll()
        self._epoll.register(self._doorbell, select.EPOLLIN)
        self._nursery = Nursery(backend, self._epoll)

    def attach(
        self, layout: ModelLayout, done: Callable[[Exception | None], None] = lambda _: None
    ) -> ProgramSet:
        """Have lanes load the programs of `layout`, which can be launched once `done` is called
        (from `poll`) with None. If it is called with an error, nothing has changed."""
        programs = self._nursery.make(layout)
        self._nursery.submit(Change((programs,), (), done))
        os.eventfd_write(self._doorbell, 1)
        return programs

    def detach(
        self, programs: ProgramSet, done: Callable[[Exception | None], None] = lambda _: None
    ) -> None:
        """Have lanes forget `programs`, of which nothing is launched any more."""
        self._nursery.submit(Change((), (programs,), done))
        os.eventfd_write(self._doorbell, 1)

    def fileno(self) -> int:
        """Readable when `poll` should be called."""
        return self._epoll.fileno()

    def pids(self) -> dict[LaneId, int]:
        """Process ids of the living lanes."""
        return {lane: state.pid for lane, state in self._lanes.items()}

    def start(self, now: Ns) -> None:
        """Start every lane; each reports LaneReady once what is attached by now was loaded."""
        self._down = dict.fromkeys(self._specs, now)
        self._nursery.start(now)

    def launch(self, command: Launch, address: Address) -> None:
        """Hand `command` to its lane. A lane that has just died loses it: LaneLost follows."""
        if lane := self._lanes.get(command.lane):
            self._last = command.lane
            lane.order(order_of(command, address, self.mask(command.cores)))

    def stir(self) -> None:
        """An order will come soon: if all lanes rest, the one that had the last wakes up."""
        lane = self._lanes.get(self._last)
        if lane and not self.busy():
            lane.ring()

    def mask(self, cores: Sequence[CoreId]) -> int:
        """`cores`, each a bit at its place among those of all lanes."""
        return sum(1 << self._machine.index(core) for core in cores)

    def busy(self) -> int:
        """The cores of orders under way, as a `mask`."""
        mask = 0
        for lane in self._lanes.values():
            if lane.busy and lane.posted:
                mask |= lane.posted.cores
        return mask

    def set_backlog(self, more: bool) -> None:
        """Tell the lanes whether there is more work than is under way; if not, they report the
        near end of a launch without waking anyone."""
        if more != self._backlog:
            self._backlog = more
            for lane in self._all():
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
        # Hardly ever is anything on its way but reports.
        if changing := not (self._steady and stirring <= {self._doorbell}):
            for spawned in self._nursery.poll(now):
                self._is_born(spawned)
        for lane in self._all():
            events += self._listen(lane)
            if lane.pidfd in stirring and lane in self._all():
                events += self._bury(lane, now)
        if changing or not self._steady:
            self._retired = [pid for pid in self._retired if not has_ended(pid)]
            self._start_due(now)
            self._renew(now)
        return events

    def watch(self, now: Ns) -> Ns:
        """Kill lanes that hang, restart those that are due; when to call again."""
        for lane in self._all():
            late = now - lane.since > _START_MAX
            if lane.pid and (lane.is_stuck(now, self._hang) if lane.ready else late):
                _log.error("lane %d is stuck: killed", lane.number)
                os.kill(lane.pid, signal.SIGKILL)
        self._start_due(now)
        due = min([self._hang // 4, _RESTART_FIRST, *(at - now for at in self._down.values())])
        return Ns(now + max(_WATCH_LEAST, due))

    def close(self) -> None:
        """Stop all lanes: ask, then kill. Idempotent."""
        if self._epoll.closed:
            return
        lanes, self._lanes, self._successor = self._all(), {}, None
        self._nursery.close()
        for lane in lanes:
            lane.end(self._epoll, _STOP_MS)
        for pid in self._retired:
            has_ended(pid, wait=True)
        self._epoll.close()
        os.close(self._doorbell)

    # --- lanes that come and go

    @property
    def _steady(self) -> bool:
        """Whether no lane and no template is on its way in or out."""
        return self._nursery.at_rest and not (self._down or self._retired or self._successor)

    def _all(self) -> list[LaneHandle]:
        lanes = list(self._lanes.values())
        return [*lanes, self._successor] if self._successor else lanes

    def _start_due(self, now: Ns) -> None:
        """Start lanes whose time has come: the first ones once everything was loaded."""
        if not (self._nursery.serving or self._nursery.idle):
            return
        for number, due in list(self._down.items()):
            if due <= now:
                self._down[number] = Ns(now + _RESTART_FIRST)
                if lane := self._spawn(number, now, idle=False):
                    del self._down[number]
                    self._lanes[number] = lane

    def _renew(self, now: Ns) -> None:
        """One lane after the other makes room for a successor that knows what has changed."""
        nursery = self._nursery
        if self._successor or not nursery.idle:
            return
        for number, lane in self._lanes.items():
            if lane.generation < nursery.generation:
                self._successor = self._spawn(number, now, idle=True)
                return
        if nursery.settling and len(self._lanes) == len(self._specs):
            nursery.settle()

    def _spawn(self, number: LaneId, now: Ns, *, idle: bool) -> LaneHandle | None:
        """A lane on its way, None if none can be made at the moment. `idle`: there is no hurry."""
        try:
            mapping = Mapping.create("channel", CHANNEL_BYTES)
        except OSError as error:
            _log.error("lane %d cannot be started: %s", number, error.strerror)
            return None
        channel = Channel(mapping.memory)
        channel.set_backlog(self._backlog)
        bell = os.eventfd(0, os.EFD_CLOEXEC)
        generation = self._nursery.generation
        lane = LaneHandle(number, generation, bell, mapping, channel, now, now)
        command = Spawn(number, self._specs[number].cores, self._machine, SPIN, idle)
        if self._nursery.spawn(command, [mapping.fd, bell, self._doorbell]):
            return lane
        lane.close(self._epoll)
        return None

    def _is_born(self, spawned: Spawned) -> None:
        for lane in self._all():
            if lane.number == spawned.lane and not lane.pid:
                lane.pid = spawned.pid
                lane.pidfd = os.pidfd_open(spawned.pid)
                self._epoll.register(lane.pidfd, select.EPOLLIN)

    def _bury(self, lane: LaneHandle, now: Ns) -> list[Event]:
        lane.close(self._epoll)
        how = cause(exit_code(lane.pid))
        number = lane.number
        # A lane that had worked starts afresh: the cause was elsewhere.
        failures = self._failures[number] = 0 if lane.worked else self._failures[number] + 1
        if failures >= _STARTS_MAX and number not in self._proven:
            raise ExecutionError(f"lane {number} does not start ({how}); its last words are above")
        if lane is self._successor:
            _log.error("a successor of lane %d died (%s)", number, how)
            self._successor = None
            if number in self._lanes:
                self._lanes[number].yielding = False
            return []
        wait = min(_RESTART_FIRST * 2 ** max(0, failures - 1), _RESTART_LAST)
        del self._lanes[number]
        self._down[number] = Ns(now + wait)
        _log.error("lane %d died (%s); restart in %.1f s", number, how, wait / SECOND)
        if self._successor and self._successor.number == number and self._successor.ready:
            self._succeed(number)
            return [LaneLost(number), LaneReady(number)]
        return [LaneLost(number)]

    def _listen(self, lane: LaneHandle) -> list[Event]:
        events: list[Event] = []
        for report in lane.channel.drain():
            if report.kind == Kind.READY:
                events += self._is_ready(lane)
            elif report.kind == Kind.YIELDED:
                self._succeed(lane.number)
            else:
                events.append(lane.event(report))
        return events

    def _is_ready(self, lane: LaneHandle) -> list[Event]:
        lane.ready = self._nursery.serving = True
        self._proven.add(lane.number)
        if lane is not self._successor:
            return [LaneReady(lane.number)]
        before = self._lanes.get(lane.number)
        if before is None:
            self._succeed(lane.number)
            return [LaneReady(lane.number)]
        if before.ready:
            before.yielding = True
            before.post(YIELD)
        return []

    def _succeed(self, number: LaneId) -> None:
        """The successor of lane `number` takes its place, and the order that was not taken up."""
        after, self._successor = self._successor, None
        before = self._lanes.pop(number, None)
        self._down.pop(number, None)
        if after is None:
            raise ExecutionError(f"lane {number} has gone without a successor")
        self._lanes[number] = after
        if before is not None:
            if order := before.left_over:
                after.post(order)
            before.close(self._epoll)
            self._retired.append(before.pid)
