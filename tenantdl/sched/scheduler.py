"""The scheduler: events and the time in, commands out. It knows no clock, socket, thread or array.

    commands = scheduler.handle(event, now)      # obey them in order
    wakeup = scheduler.next_wakeup()             # send a Tick then, if nothing happens before

The daemon and the simulator are short loops around these two calls. Every request gets exactly
one Complete or Reject, and after it no lane touches the request's memory.
"""

from __future__ import annotations

from tenantdl.errors import InvariantError
from tenantdl.ids import LaneId, RequestId
from tenantdl.sched.admission import admits
from tenantdl.sched.book import Book
from tenantdl.sched.check import check
from tenantdl.sched.config import SchedulerConfig
from tenantdl.sched.messages import (
    BlockFailed,
    BlockFinished,
    Cancelled,
    Command,
    Complete,
    Event,
    LaneLost,
    LaneReady,
    Launch,
    LaunchId,
    LaunchStarted,
    Reason,
    Reject,
    RequestArrived,
    Tick,
)
from tenantdl.sched.placing import Choice
from tenantdl.sched.policies.names import find_policy
from tenantdl.sched.request import Request, State, arrived_request
from tenantdl.sched.state import Counts, Lane
from tenantdl.units import Ns


class Scheduler:
    """One machine's scheduler; `book`: what it knows, to be read only. Raises InvariantError for
    events that cannot be."""

    def __init__(self, config: SchedulerConfig) -> None:
        self._policy, self._parameter = find_policy(config.policy)
        self._book = self.book = Book(config, self._policy.rank)
        self._decide = self._policy.make(self._book, self._parameter)
        self._now, self._arrivals, self._launches = Ns(0), 0, 0
        self._out: list[Command] = []

    def handle(self, event: Event, now: Ns) -> list[Command]:
        """Take `event` in at time `now` (which never goes back) and say what to do."""
        if now < self._now:
            raise InvariantError(f"time went back from {self._now} to {now}")
        self._now = self._book.now = now
        self._out = []
        match event:
            case RequestArrived():
                self._arrived(event)
            case BlockFinished():
                self._block_finished(event)
            case LaunchStarted():
                self._start(self._lane(event.lane), event.launch, now)
            case BlockFailed():
                self._block_failed(event)
            case LaneReady():
                self._book.set_ready(self._lane(event.lane), True)
            case LaneLost():
                self._lane_lost(self._lane(event.lane))
            case Cancelled():
                self._cancelled(event.request)
            case Tick():
                pass
            case _:
                if self._book.served.change(event):
                    self._book.usage.sum_up(self._book.tenants.values())
                self._decide = self._policy.make(self._book, self._parameter)
        self._expire()
        if not self._in_the_middle(event):
            self._dispatch()
        return self._out

    def next_wakeup(self) -> Ns | None:
        """When a Tick is due, None if only events matter."""
        first, wakeup = self._book.expiry.head, self._book.wakeup
        if first is None:
            return wakeup
        return min(first.expires, wakeup) if wakeup else first.expires

    def backlog(self) -> bool:
        """Whether there is work beyond the launches that are out: what a lane that nears the end of
        its launch should do next is then an open question."""
        return self._book.backlog()

    def check(self) -> None:
        """Raise InvariantError unless all requests, arenas and cores are accounted for."""
        check(self._book)

    def counts(self) -> Counts:
        """What was done so far."""
        return self._book.counts

    def live(self) -> dict[RequestId, State]:
        """The state of every request that is not answered yet."""
        return {request.id: request.state for request in self._book.requests.values()}

    # --- events

    def _arrived(self, event: RequestArrived) -> None:
        book, now = self._book, self._now
        if event.request in book.requests:
            raise InvariantError(f"request {event.request} arrived twice")
        tenant, costs = book.tenants[event.tenant], book.served.plan_costs(event.model, event.plan)
        for late in book.surplus(tenant):
            self._refuse(late, Reason.DEADLINE_INFEASIBLE)
        if tenant.live >= tenant.spec.queue_max:
            self._out.append(Reject(event.request, Reason.QUEUE_FULL))
        elif event.expires <= now:
            self._out.append(Reject(event.request, Reason.EXPIRED))
        elif book.config.refuse_infeasible and not admits(book, event, costs, now):
            self._out.append(Reject(event.request, Reason.DEADLINE_INFEASIBLE))
        else:
            self._arrivals += 1
            book.admit(arrived_request(event, self._arrivals, costs, now, book.config.reserve))

    def _block_finished(self, event: BlockFinished) -> None:
        lane, launch, request = self._current(event)
        if event.begin != request.progress or event.end not in launch.ends:
            raise request.broken(f"lane {lane.id} reports segments {event.begin}:{event.end}")
        book, costs, size = self._book, request.costs, len(launch.cores)
        pressure = book.pressure_on(lane.pressure)
        book.sense(costs, launch, event, pressure)
        before = costs.alarms
        costs.observe(launch.variant, size, event.begin, event.end, event.elapsed, pressure)
        book.counts.alarms += costs.alarms - before
        book.spend(request, event, size, self._now)
        book.counts.block(lane, request.before, event)
        request.progress, request.before = event.end, launch
        lane.boundary = lane.ended = event.at
        if event.next == launch.launch:
            return
        lane.running = None
        if request.progress == costs.count:
            self._finish(request)
        else:
            self._let_go(lane, request)
        self._go_on(lane, event.next, event.at)

    def _block_failed(self, event: BlockFailed) -> None:
        lane, _, request = self._current(event)
        request.doomed = request.doomed or Reason.EXECUTION_FAILED
        lane.running = None
        self._let_go(lane, request)
        self._go_on(lane, event.next, self._now)

    def _current(self, event: BlockFinished | BlockFailed) -> tuple[Lane, Launch, Request]:
        lane = self._lane(event.lane)
        launch = lane.running
        if launch is None or (launch.launch, launch.request) != (event.launch, event.request):
            raise InvariantError(f"lane {lane.id} runs {launch}, but reports {event}")
        return lane, launch, self._book.requests[event.request]

    def _lane_lost(self, lane: Lane) -> None:
        orders = [lane.running, *lane.pending] if lane.running else lane.pending
        held = dict.fromkeys(order.request for order in orders)
        self._book.set_ready(lane, False)
        for number in held:
            request = self._book.requests.get(number)
            if request and request.state in (State.PLACED, State.RUNNING):
                # Its activations may be half written: from the start, if that can still be in time.
                request.progress = 0
                tries_left = request.attempts < self._book.config.attempts_max
                if not tries_left or self._book.eta(request, self._now) > request.deadline:
                    request.doomed = request.doomed or Reason.LANE_LOST
                self._settle(request)

    def _cancelled(self, number: RequestId) -> None:
        request = self._book.requests.get(number)
        if request is None:
            return
        if request.state in (State.WAITING, State.PARKED):
            self._refuse(request, Reason.CANCELLED)
        else:
            request.doomed = request.doomed or Reason.CANCELLED

    def _expire(self) -> None:
        expiry = self._book.expiry
        while (request := expiry.head) and request.expires <= self._now:
            if request.state in (State.WAITING, State.PARKED):
                self._refuse(request, Reason.EXPIRED)
            else:
                # If it is done before anything else wants the lane, the answer still goes out.
                expiry.remove(request)
                request.doomed = request.doomed or Reason.EXPIRED

    # --- moves of a request

    def _go_on(self, lane: Lane, number: LaunchId | None, at: Ns) -> None:
        if number is None:
            self._book.settle(lane)
        else:
            self._start(lane, number, at)

    def _start(self, lane: Lane, number: LaunchId, at: Ns) -> None:
        """`lane` has begun launch `number`: older ones it never took up were superseded."""
        if lane.running is not None or all(p.launch != number for p in lane.pending):
            raise InvariantError(f"lane {lane.id} cannot begin launch {number}: {lane}")
        while (launch := lane.pending.pop(0)).launch != number:
            request = self._book.requests.get(launch.request)
            if request and request.state is State.PLACED and request.lane == lane.id:
                self._let_go(lane, request)
        request = self._book.requests[launch.request]
        request.move(State.RUNNING, self._now)
        request.attempts += launch.begin == 0
        lane.running, lane.boundary = launch, at
        self._book.settle(lane)

    def _let_go(self, lane: Lane, request: Request) -> None:
        """`lane` does not run `request` any more; another launch of it may be on the way."""
        if any(launch.request == request.id for launch in lane.pending):
            if request.state is not State.PLACED:
                request.move(State.PLACED, self._now)
        else:
            self._settle(request)

    def _settle(self, request: Request) -> None:
        """No lane holds `request`: refuse it, park it, or let it wait from the start."""
        if request.doomed:
            self._refuse(request, request.doomed)
        elif request.progress:
            self._book.park(request, self._now)
        else:
            self._book.wait(request, self._now)

    def _finish(self, request: Request) -> None:
        if request.doomed in (None, Reason.EXPIRED):
            request.move(State.DONE, self._now)
            target = max(1, request.deadline - request.arrived)
            lateness = (self._now - request.arrived) * 1000 // target
            self._book.tenants[request.tenant].lateness.append(lateness)
            self._book.forget(request)
            self._out.append(Complete(request.id))
        else:
            self._refuse(request, request.doomed)

    def _refuse(self, request: Request, reason: Reason) -> None:
        self._book.unplace(request)
        request.move(State.REFUSED, self._now)
        self._book.forget(request)
        self._out.append(Reject(request.id, reason))

    # --- decisions

    def _in_the_middle(self, event: Event) -> bool:
        """Whether a lane only reports from the middle of its launch, or has begun one when there is
        no other work: nothing to decide, and lanes do not even wake their owner."""
        if not isinstance(event, BlockFinished) or event.next != event.launch:
            return isinstance(event, LaunchStarted) and not self._book.backlog()
        return not self._book.near_end(self._lane(event.lane))

    def _dispatch(self) -> None:
        for choice in self._decide(self._now):
            self._out.append(self._launch(choice))

    def _launch(self, choice: Choice) -> Launch:
        book, request, lane = self._book, choice.request, choice.lane
        if request.state is not State.RUNNING:
            book.unplace(request)
            book.take_arena(request, self._now)
            request.move(State.PLACED, self._now)
        if request.arena is None:
            raise request.broken("launched without an arena")
        cores = book.cores.cores(choice.mask)
        self._launches += 1
        request.lane, request.group, request.variant = lane.id, choice.mask, choice.variant
        remaining = request.costs.at(choice.variant, len(cores)).remaining(choice.begin)
        launch = Launch(
            launch=LaunchId(self._launches),
            lane=lane.id,
            request=request.id,
            arena=request.arena,
            begin=choice.begin,
            ends=choice.ends,
            preempt=choice.preempt,
            earliest=self._now,
            latest=Ns(request.deadline - remaining),
            cores=cores,
            variant=choice.variant,
            wanted=choice.wanted,
        )
        book.place(lane, launch, choice.mask)
        return launch

    def _lane(self, lane: LaneId) -> Lane:
        try:
            return self._book.lanes[lane]
        except KeyError:
            raise InvariantError(f"lane {lane} was never declared") from None
