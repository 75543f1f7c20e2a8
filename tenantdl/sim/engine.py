"""Virtual time: the scheduler, virtual lanes that obey it, and a heap of what happens next.

Lanes follow the rules of the real ones: one place for the newest order, looked at between blocks.
Blocks are fluid: whenever the set of running launches changes, what is left of every block goes on
at its new speed. Ties are broken by a sequence number, so a seed gives the same run to the byte.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from tenantdl.ids import LaneId, RequestId
from tenantdl.sched.batched import BatchedScheduler
from tenantdl.sched.config import SchedulerConfig
from tenantdl.sched.costs import UNDISTURBED
from tenantdl.sched.messages import (
    BlockFinished,
    Command,
    Complete,
    Dissolved,
    Event,
    Gathered,
    LaneReady,
    Launch,
    LaunchStarted,
    Reject,
    RequestArrived,
    Tick,
)
from tenantdl.sched.state import Counts
from tenantdl.sim.contention import Running
from tenantdl.sim.execution import ExecutionModel
from tenantdl.units import Ns

# Slowdowns that changed by less (in 1/1000) are left as they are: it saves most of the heap's work.
_CHANGE_MIN = 10

_START = Ns(0)

Observer = Callable[[Ns, Event, list[Command]], None]


class Answer(NamedTuple):
    """How a request ended: `finished` is None if it was refused."""

    arrived: RequestArrived
    at: Ns
    finished: Ns | None


class Span(NamedTuple):
    """Cores were in use for a block of a request."""

    launch: Launch
    begin: Ns
    end: Ns


@dataclass(slots=True)
class _Lane:
    """`left`: ns of the running block, undisturbed, at time `seen`; `slow`: its slowdown since;
    `version`: of its entry in the heap."""

    id: LaneId
    order: Launch | None = None
    launch: Launch | None = None
    block: int = 0
    running: Running | None = None
    begin: int = 0
    started: int = 0
    left: int = 0
    seen: int = 0
    slow: int = UNDISTURBED
    version: int = 0


@dataclass
class Outcome:
    """What a run leaves behind. `spans` only if they were asked for."""

    answers: list[Answer] = field(default_factory=list)
    spans: list[Span] = field(default_factory=list)
    core_time: int = 0
    busy_time: int = 0
    end: Ns = _START
    counts: Counts = field(default_factory=Counts)


class Simulation:
    """One run. `arrivals` are ascending (time, request) pairs."""

    def __init__(
        self,
        config: SchedulerConfig,
        model: ExecutionModel,
        *,
        seed: int,
        observer: Observer | None = None,
        keep_spans: bool = False,
        misses_max: int | None = None,
    ) -> None:
        """`misses_max`: stop when more requests than that were late or refused."""
        self._scheduler = BatchedScheduler(config)
        self._model = model
        self._rng = random.Random(seed)
        self._noise, self._spread = model.machine.noise, model.machine.spread
        self._observer = observer
        self._keep_spans = keep_spans
        self._misses_left = misses_max
        self._lanes = {spec.lane: _Lane(spec.lane) for spec in config.lanes}
        self._active: dict[LaneId, _Lane] = {}
        self._contention = model.contention()
        self._heap: list[tuple[int, int, LaneId, int]] = []
        self._sequence = 0
        self._hopeless = False
        self._arrived: dict[RequestId, tuple[RequestArrived, Ns]] = {}
        self._last: dict[RequestId, Launch] = {}
        self.outcome = Outcome(counts=self._scheduler.counts())

    def run(self, arrivals: Iterable[tuple[Ns, RequestArrived]]) -> Outcome:
        """Until all requests are answered."""
        for lane in self._lanes:
            self._send(Ns(0), LaneReady(lane))
        pending = iter(arrivals)
        following = next(pending, None)
        while True:
            due = self._heap[0][0] if self._heap else None
            wakeup = self._scheduler.next_wakeup()
            times = [t for t in (due, wakeup, following and following[0]) if t is not None]
            if not times or (following is None and not self._arrived) or self._hopeless:
                break
            now = Ns(min(times))
            if due == now:
                _, _, number, version = heapq.heappop(self._heap)
                done = self._lanes[number]
                if done.version != version:
                    continue
                self._block_done(done, now)
            elif following is not None and following[0] == now:
                self._arrived[following[1].request] = (following[1], now)
                self._send(now, following[1])
                following = next(pending, None)
            else:
                self._send(now, Tick())
            self._adjust(now)
            self.outcome.end = now
        return self.outcome

    def _send(self, now: Ns, event: Event) -> None:
        """Tell the scheduler, and do as it says; what that starts is told in turn."""
        commands = self._scheduler.handle(event, now)
        if self._observer:
            self._observer(now, event, commands)
        woken: list[_Lane] = []
        for command in commands:
            match command:
                case Launch():
                    lane = self._lanes[command.lane]
                    lane.order = command
                    if lane.launch is None:
                        woken.append(lane)
                case Gathered():
                    self._arrived[command.batch.request] = (command.batch, now)
                case Dissolved():
                    del self._arrived[command.request]
                    self._last.pop(command.request, None)
                case Complete() | Reject():
                    arrived, at = self._arrived.pop(command.request)
                    finished = now if isinstance(command, Complete) else None
                    self.outcome.answers.append(Answer(arrived, at, finished))
                    self._last.pop(command.request, None)
                    if finished is None or finished > arrived.deadline:
                        self._missed()
        for lane in woken:
            if lane.launch is None and lane.order is not None:
                order, lane.order = lane.order, None
                self._take(lane, order, now, idle=True)
                self._send(now, LaunchStarted(lane.id, order.launch))

    def _missed(self) -> None:
        if self._misses_left is not None:
            self._misses_left -= 1
            self._hopeless = self._misses_left < 0

    def _take(self, lane: _Lane, order: Launch, now: Ns, *, idle: bool) -> None:
        arrived, _ = self._arrived[order.request]
        running = self._model.running(arrived.model, arrived.plan, order)
        lane.launch, lane.running, lane.block, lane.begin = order, running, 0, order.begin
        self._contention.enter(running)
        self._active[lane.id] = lane
        before = self._last.get(order.request)
        self._last[order.request] = order
        overhead = self._model.overhead(order, before, first=True, idle=idle)
        self._begin_block(lane, order, running, now, overhead)

    def _begin_block(
        self, lane: _Lane, launch: Launch, running: Running, now: Ns, overhead: int
    ) -> None:
        noise = max(0.5, self._rng.gauss(1.0, self._noise)) if self._noise else 1.0
        if self._spread:
            noise = self._rng.choice(self._spread)
        work = self._model.work(running, lane.begin, launch.ends[lane.block], noise)
        lane.started, lane.seen = now, now
        lane.left = work + overhead
        # `_adjust` finds the speed when everything that happens now has happened.
        lane.slow = 0

    def _block_done(self, lane: _Lane, now: Ns) -> None:
        launch, running = lane.launch, lane.running
        if launch is None or running is None:
            raise TypeError("a lane without a launch has finished a block")
        end = launch.ends[lane.block]
        elapsed = Ns(now - lane.started)
        self.outcome.core_time += elapsed * running.cores
        self.outcome.busy_time += elapsed
        if self._keep_spans:
            self.outcome.spans.append(Span(launch, Ns(lane.started), now))
        through = lane.block == len(launch.ends) - 1
        order = lane.order
        follows = order if order is not None and (through or order.preempt) else None
        lane.version += 1
        event = BlockFinished(
            lane.id,
            launch.launch,
            launch.request,
            lane.begin,
            end,
            elapsed,
            now,
            follows.launch if follows else None if through else launch.launch,
        )
        if through or follows:
            self._drop(lane, running)
            if follows:
                lane.order = None
                self._take(lane, follows, now, idle=False)
        else:
            lane.begin, lane.block = end, lane.block + 1
            overhead = self._model.overhead(launch, None, first=False, idle=False)
            self._begin_block(lane, launch, running, now, overhead)
        self._send(now, event)

    def _drop(self, lane: _Lane, running: Running) -> None:
        self._contention.leave(running)
        lane.launch = lane.running = None
        del self._active[lane.id]

    def _adjust(self, now: Ns) -> None:
        """Everyone goes on at the speed that fits what runs beside them now."""
        for lane in self._active.values():
            if lane.running is None:
                continue
            slow = self._contention.slowdown(lane.running)
            if lane.slow and abs(slow - lane.slow) < _CHANGE_MIN:
                continue
            if lane.slow:
                lane.left = max(1, lane.left - (now - lane.seen) * UNDISTURBED // lane.slow)
            lane.slow, lane.seen = slow, now
            lane.version += 1
            self._sequence += 1
            due = now + max(1, lane.left * slow // UNDISTURBED)
            heapq.heappush(self._heap, (due, self._sequence, lane.id, lane.version))
