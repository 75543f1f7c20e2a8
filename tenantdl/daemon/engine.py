"""The asyncio driver: a short loop around the pure scheduler, the lanes and the clock.

Everything runs on one thread. A request's inputs go into a slot of shared memory at once; then
only small events and orders move. Every event and what the scheduler said goes to the journal.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from pathlib import Path

from tenantdl.daemon.alarm import Alarm
from tenantdl.daemon.applications import Applications
from tenantdl.daemon.attention import Attention
from tenantdl.daemon.calls import Call, Refused, Ticket
from tenantdl.daemon.catalogue import Catalogue, scheduler_config
from tenantdl.daemon.door import Door
from tenantdl.daemon.hosting import Hosting
from tenantdl.daemon.journal import JournalWriter
from tenantdl.daemon.observe.observer import open_observer
from tenantdl.daemon.statistics import Statistics, Timing
from tenantdl.daemon.tenants import open_tenant
from tenantdl.daemon.tickets import Tickets
from tenantdl.exec.lane_pool import BACKEND, LanePool
from tenantdl.ids import LaneId, RequestId, TenantId
from tenantdl.load.protocol import Array
from tenantdl.load.workload import Workload
from tenantdl.machine import usable_cores
from tenantdl.sched.batched import BatchedScheduler
from tenantdl.sched.config import LaneSpec
from tenantdl.sched.messages import (
    BlockFinished,
    Cancelled,
    Complete,
    Dissolved,
    Event,
    Gathered,
    LaneLost,
    LaneReady,
    Launch,
    Reason,
    Reject,
    RequestArrived,
    Tick,
)
from tenantdl.units import Ns, from_seconds, to_seconds

_log = logging.getLogger(__name__)


class Engine:
    """Serves a catalogue. Used by one event loop: `start`, any number of `infer`, `close`."""

    def __init__(
        self,
        workload: Workload,
        catalogue: Catalogue,
        *,
        journal: Path | None = None,
        backend: str = BACKEND,
        on_failure: Callable[[], None] = lambda: None,
    ) -> None:
        """`on_failure` is called when service has ended for good, which `failure` explains. Raises
        UserError for lanes on cores that are not there."""
        groups = workload.lane_cores(tuple(usable_cores()))
        lanes = [LaneSpec(LaneId(i), group) for i, group in enumerate(groups)]
        config = scheduler_config(workload, catalogue, lanes)
        self.catalogue = catalogue
        self._scheduler = BatchedScheduler(config)
        self._workload = workload
        self._pool = LanePool(lanes, hang=from_seconds(workload.scheduler.hang_s), backend=backend)
        self._tenants = {n: open_tenant(section) for n, section in catalogue.tenants.items()}
        self.hosting = Hosting(workload, catalogue, self._pool, self.tell)
        self._memory = self.hosting.memory
        self.door = Door(self._scheduler.book, self._tenants)
        self.hosting.begin(self._loaded_first)
        self._applications = Applications(catalogue, self)
        self.statistics = Statistics(catalogue.label, self._queues)
        counts = self._scheduler.counts
        self.observer = open_observer(workload, config, catalogue, self.statistics, counts)
        limit = round(workload.server.journal_mb_max * 1024**2)
        self._journal = JournalWriter(journal, config, limit) if journal else None
        self._tickets = Tickets()
        self._requests = 0
        self._ready: dict[LaneId, bool] = {lane.lane: False for lane in lanes}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._alarm = Alarm(self._tick)
        self._attention = Attention([core for group in groups for core in group])
        self._watch: asyncio.TimerHandle | None = None
        self._complete_once = False
        self._on_failure = on_failure
        self.failure: Exception | None = None

    @property
    def ready(self) -> bool:
        """Whether requests are served: all lanes have loaded once, one at least lives."""
        return self.failure is None and self._complete_once and any(self._ready.values())

    def start(self) -> None:
        """Start the lanes; returns at once, `ready` turns true when they have loaded."""
        self._loop = asyncio.get_running_loop()
        self._attention.start(self._loop)
        self._pool.start(_clock())
        self._loop.add_reader(self._pool.fileno(), self.tell)
        self._watch_lanes()

    def close(self) -> None:
        """Refuse what is open, stop the lanes, finish the journal. Idempotent."""
        self._alarm.cancel()
        self._attention.close()
        if self._watch:
            self._watch.cancel()
        self._refuse_all(Reason.LANE_LOST)
        if self._loop:
            self._loop.remove_reader(self._pool.fileno())
            self._loop = None
        self._applications.close()
        self._pool.close()
        self.observer.close()
        if self._journal:
            self._journal.close()

    async def infer(self, call: Call) -> tuple[dict[str, Array], Timing]:
        """Run one inference, or an application; outputs by name, and where the time went.

        Raises Refused. Cancelling the task that awaits this cancels the request.
        """
        if call.model in self.catalogue.applications:
            return await self._applications.infer(call)
        ticket = self.open(call)
        self.write(ticket)
        return await self.answer(ticket), ticket.timing

    def open(self, call: Call) -> Ticket:
        """A slot for a call. Raises Refused where there is none."""
        timing = Timing(call.tenant, call.model)
        tenant, memory = self._tenants[call.tenant], self._memory[call.model]
        reason = tenant.refusal(_clock()) if memory.free else Reason.QUEUE_FULL
        if reason or self.failure or self._loop is None:
            reason = reason or Reason.LANE_LOST
            self.statistics.refused(timing, reason.value, _clock())
            raise Refused(reason)
        tenant.count += 1
        answer: asyncio.Future[dict[str, Array]] = self._loop.create_future()
        return Ticket(call, memory.free.pop(), answer, timing, Ns(call.arrived + tenant.qos))

    def stir(self) -> None:
        """A request begins to arrive."""
        self._pool.stir()

    def write(self, ticket: Ticket) -> None:
        """Put a call's inputs into its slot."""
        slots = self._memory[ticket.call.model].programs.slots
        slots.write(ticket.slot, ticket.call.plan, ticket.call.inputs)

    async def answer(self, ticket: Ticket) -> dict[str, Array]:
        """Hand a call whose inputs are in its slot to the scheduler, and wait for its outputs."""
        call, tenant = ticket.call, self._tenants[ticket.call.tenant]
        ticket.timing.compute_input = _clock() - call.arrived
        self._requests += 1
        number = RequestId(self._requests)
        expires = Ns(call.arrived + min(tenant.timeout, call.timeout or tenant.timeout))
        ticket.deadline = min(call.deadline or ticket.deadline, expires)
        self._tickets[number] = ticket
        self.observer.expect(number, call.origin)
        priority = max(tenant.priority, call.priority or 0)  # nobody overtakes others at will
        terms = (ticket.deadline, expires, priority)
        self.tell(RequestArrived(number, call.tenant, call.model, call.plan, *terms))
        try:
            return await ticket.answer
        except asyncio.CancelledError:
            if ticket.lent and not ticket.answer.cancelled() and not ticket.answer.exception():
                self.leave(ticket)  # answered, but nobody is there to read it
            self.tell(Cancelled(number))
            raise

    def tell(self, event: Event | None = None) -> None:
        """Take in what the lanes have said, then `event`. A bug of ours ends the service."""
        if self.failure or self._loop is None:
            return
        try:
            now = _clock()
            events = self._pool.poll(now)
            if event is not None:
                events.append(event)
            for each in events:
                self._handle(each)
            if events:
                self._attention.look(now, self._pool.busy())
                self._attention.afterwards(self.observer.settle)
            self._alarm.set(self._scheduler.next_wakeup(), self._loop)
            self._pool.set_backlog(self._scheduler.backlog())
        except Exception as error:
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        _log.error("service has ended", exc_info=error)
        self.failure = error
        self._refuse_all(Reason.EXECUTION_FAILED)
        self._on_failure()

    def _loaded_first(self, error: Exception | None) -> None:
        """One of the models that were there from the start was loaded, or was not."""
        if error is not None:
            self._fail(error)

    def _handle(self, event: Event) -> None:
        self._note(event)
        now = _clock()
        commands = self._scheduler.handle(event, now)
        if self._journal:
            self._journal.write(now, event, commands)
        self.observer.note(now, event, commands)
        for command in commands:
            match command:
                case Launch():
                    self._attention.give_way(self._pool.busy() | self._pool.mask(command.cores))
                    self._pool.launch(command, self._tickets.address(command.request, self._memory))
                case Gathered() | Dissolved():
                    self._tickets.note(command)
                case Complete():
                    self._complete(command.request, now)
                case Reject():
                    self._reject(command.request, command.reason, now)
                case _:
                    raise TypeError(f"not a command: {command!r}")

    def _note(self, event: Event) -> None:
        """What the driver itself wants to know of an event."""
        match event:
            case BlockFinished():
                for ticket in self._tickets.of(event.request):
                    ticket.ran(event)
            case LaneReady():
                self._ready[event.lane] = True
                self._complete_once |= all(self._ready.values())
            case LaneLost():
                self._ready[event.lane] = False

    def _complete(self, number: RequestId, now: Ns) -> None:
        ticket = self._tickets.pop(number)
        slots = self._memory[ticket.call.model].programs.slots
        outputs = slots.outputs(ticket.slot, ticket.call.plan)
        if model := self.catalogue.models.get(ticket.call.model):
            outputs = model.cut(ticket.call.inputs, outputs)
        if not ticket.lent:
            outputs = {name: view.copy() for name, view in outputs.items()}
        if not ticket.lent or ticket.answer.done():
            self.leave(ticket)
        ticket.ended(now)
        self.statistics.answered(ticket.timing, now)
        if not ticket.answer.done():
            ticket.answer.set_result(outputs)

    def _reject(self, number: RequestId, reason: Reason, now: Ns) -> None:
        ticket = self._tickets.pop(number)
        self.leave(ticket)
        ticket.ended(now)
        self.statistics.refused(ticket.timing, reason.value, now)
        if not ticket.answer.done():
            ticket.answer.set_exception(Refused(reason))

    def leave(self, ticket: Ticket) -> None:
        """The slot of an answered request is free again."""
        self._tenants[ticket.call.tenant].count -= 1
        self.hosting.leave(ticket.call.model, ticket.slot)

    def _refuse_all(self, reason: Reason) -> None:
        """The end of service: nobody is left without an answer."""
        for ticket in self._tickets.values():
            if not ticket.answer.done():
                ticket.answer.set_exception(Refused(reason))
        self._tickets.clear()

    def _queues(self) -> dict[TenantId, int]:
        """How many requests of each tenant are inside."""
        own = {name: tenant.count for name, tenant in self._tenants.items()}
        return own | self._applications.inside()

    def _tick(self) -> None:
        due = self._scheduler.next_wakeup()
        self.tell(Tick() if due is not None and due <= _clock() else None)

    def _watch_lanes(self) -> None:
        if self._loop is None:
            return
        again = self._pool.watch(_clock())
        self.tell()
        if self._journal:
            self._journal.flush()
        self._watch = self._loop.call_later(to_seconds(again - _clock()), self._watch_lanes)


def _clock() -> Ns:
    """Also the clock of the lanes."""
    return Ns(time.monotonic_ns())
