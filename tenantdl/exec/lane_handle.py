"""One lane's process as its owner sees it: orders go in, reports come out as events."""

from __future__ import annotations

import os
import select
import signal
from dataclasses import dataclass
from typing import NamedTuple

from tenantdl.exec.endings import has_ended
from tenantdl.exec.lane_memory import Mapping
from tenantdl.exec.lane_wire import Channel, Kind, Order, Report
from tenantdl.ids import LaneId, RequestId
from tenantdl.sched.messages import BlockFailed, BlockFinished, Launch, LaunchId, LaunchStarted
from tenantdl.units import Ns


class Address(NamedTuple):
    """Where a request's program, and its slot, are: numbers that the lanes know. A batch has more
    slots, laid out for plan number `member` of the model."""

    program: int
    slots: tuple[int, ...]
    member: int


def order_of(command: Launch, address: Address, cores: int) -> Order:
    """`command` as a lane needs it; `cores`: its cores as a mask."""
    return Order(
        command.launch,
        command.request,
        *(address.program, command.arena, address.slots, address.member),
        command.begin,
        command.ends,
        command.preempt,
        cores,
        command.variant,
    )


@dataclass(slots=True)
class LaneHandle:
    """`generation`: of the template that it was forked from. `pid`: 0 until it is known to live.
    `moved`: when it was last seen to have moved; `asked`: when an idle one was asked for a sign of
    life that it has not given yet. `worked`: it has finished a block. `posted`: its newest order,
    `begun`: whether it was taken up. `held`: the order for its successor, while it is on its way
    out (`yielding`)."""

    number: LaneId
    generation: int
    bell: int
    mapping: Mapping
    channel: Channel
    since: Ns
    moved: Ns
    asked: Ns | None = None
    pid: int = 0
    pidfd: int = -1
    ready: bool = False
    worked: bool = False
    beat: int = 0
    posted: Order | None = None
    begun: bool = False
    busy: bool = False
    yielding: bool = False
    held: Order | None = None

    def order(self, order: Order) -> None:
        """`order` is for this lane, or for its successor if it is on its way out."""
        if self.yielding:
            self.held = order
        else:
            self.post(order)

    def post(self, order: Order) -> None:
        """Write `order` over whatever waits there, and ring."""
        self.channel.post(order)
        if order.ends:
            self.posted, self.begun, self.busy = order, False, True
        # Always: a lane that looked a moment ago may have gone to sleep since its last report.
        self.ring()

    def ring(self) -> None:
        """Wake it."""
        os.eventfd_write(self.bell, 1)

    def is_stuck(self, now: Ns, hang: Ns) -> bool:
        """Whether it has been silent for longer than `hang`, in a block or since it was asked: who
        is idle is asked now and then, lest a request be what finds out."""
        if (beat := self.channel.beat) != self.beat:
            self.beat, self.moved, self.asked = beat, now, None
        if self.asked is not None:
            return now - self.asked > hang
        if self.busy:
            return now - self.moved > hang
        if now - self.moved > hang // 4:
            self.asked = now
            self.ring()
        return False

    @property
    def left_over(self) -> Order | None:
        """The newest order that was not taken up."""
        return self.held or (None if self.begun else self.posted)

    def end(self, epoll: select.epoll, patience_ms: int) -> None:
        """Close it once its process has ended, which is killed after `patience_ms`."""
        if self.pid:
            ending = select.poll()
            ending.register(self.pidfd, select.POLLIN)
            if not ending.poll(patience_ms):
                os.kill(self.pid, signal.SIGKILL)
            has_ended(self.pid, wait=True)
        self.close(epoll)

    def close(self, epoll: select.epoll) -> None:
        """Give back what was opened for the lane; `epoll` hears of its end no more."""
        if self.pidfd >= 0:
            epoll.unregister(self.pidfd)
            os.close(self.pidfd)
        os.close(self.bell)
        self.mapping.close()

    def event(self, report: Report) -> LaunchStarted | BlockFailed | BlockFinished:
        """What `report` (of a launch) means to the scheduler."""
        launch, request = LaunchId(report.launch), RequestId(report.request)
        follows = LaunchId(report.next) if report.next else None
        started = report.kind == Kind.STARTED
        if self.posted and self.posted.launch in (launch, follows):
            self.begun, self.busy = True, started or follows is not None
        if started:
            return LaunchStarted(self.number, launch)
        if report.kind == Kind.FAILED:
            return BlockFailed(self.number, launch, request, follows)
        self.worked = True
        elapsed, at = Ns(report.elapsed), Ns(report.at)
        return BlockFinished(
            self.number, launch, request, report.begin, report.end, elapsed, at, follows
        )
