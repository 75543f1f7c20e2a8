"""Every block that ran: who, on which cores, in which variant, from when to when. Times in ns.

Follows the scheduler from outside, by the same (now, event, commands) that its journal holds, so
that a journal gives the same blocks as the daemon that wrote it.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

from tenantdl.daemon.observe.ended import NOBODY, Ended, Live, Origin
from tenantdl.errors import UserError
from tenantdl.ids import LaneId, ModelId, RequestId, TenantId
from tenantdl.load.status import Block
from tenantdl.sched.journal import read
from tenantdl.sched.messages import (
    BlockFailed,
    BlockFinished,
    Command,
    Complete,
    Dissolved,
    Event,
    Gathered,
    LaneLost,
    Launch,
    LaunchId,
    LaunchStarted,
    Reject,
    RequestArrived,
)
from tenantdl.units import Ns

# A minute of a busy two-core machine; about 20 MB.
BLOCKS_MAX = 65_536
JOURNAL_BLOCKS_MAX = 2_000_000


class Timeline:
    """The last `blocks_max` blocks, and what is under way. `origins`: of requests about to arrive;
    `ended`: the requests that the last event ended; `keep_blocks`: with the requests, too.
    So far there were `batches` of `batched` requests in all."""

    def __init__(self, blocks_max: int = BLOCKS_MAX, *, keep_blocks: bool = False) -> None:
        # Plain tuples of plain values: the garbage collector leaves them alone, which it does not
        # do for named ones; walking all of them would hold the daemon up for 10 ms now and then.
        self._ring: deque[tuple[Any, ...]] = deque(maxlen=blocks_max)
        self._orders: defaultdict[LaneId, dict[LaunchId, Launch]] = defaultdict(dict)
        self.live: dict[RequestId, Live] = {}
        self.origins: dict[RequestId, Origin] = {}
        self.ended: list[Ended] = []
        self.keep_blocks = keep_blocks
        self.count = 0
        self.batches = 0
        self.batched = 0

    def note(
        self, now: Ns, event: Event, commands: Iterable[Command], expected: Ns | None = None
    ) -> Block | None:
        """Take in one call of the scheduler; the block that `event` ended, if it did."""
        block = None
        self.ended = []
        match event:
            case RequestArrived():
                origin = self.origins.pop(event.request, NOBODY)
                self.live[event.request] = Live(
                    event.tenant, event.model, event.plan, now, event.deadline, origin
                )
            case BlockFinished():
                block = self._finished(event, expected)
            case BlockFailed():
                self._begun(event.lane, event.next)
            case LaunchStarted():
                self._begun(event.lane, event.launch)
            case LaneLost():
                self._orders.pop(event.lane, None)
            case _:
                pass
        for command in commands:
            self._obeyed(command, now)
        return block

    def blocks(self, since: int = 0) -> list[Block]:
        """The blocks in the ring from number `since` on, oldest first."""
        skipped = max(0, since - (self.count - len(self._ring)))
        return [Block._make(block) for block in islice(self._ring, skipped, None)]

    def pending(self) -> Counter[tuple[ModelId, TenantId]]:
        """How many requests no lane was told to run yet."""
        requests = (live for live in self.live.values() if live.size is None)
        waiting = (live for live in requests if not (live.batch or live).launched)
        return Counter((live.model, live.tenant) for live in waiting)

    def _obeyed(self, command: Command, now: Ns) -> None:
        match command:
            case Launch():
                self._orders[command.lane][command.launch] = command
                if live := self.live.get(command.request):
                    live.launched = True
                    live.batch = None  # it may have been in one before
            case Complete() | Reject():
                reason = command.reason if isinstance(command, Reject) else None
                if ended := self.live.pop(command.request, None):
                    self.ended.append(Ended(command.request, ended, now, reason))
            case Gathered():
                self._gathered(command, now)
            case Dissolved():
                self.live.pop(command.request, None)

    def _gathered(self, command: Gathered, now: Ns) -> None:
        one, size = command.batch, len(command.members)
        batch = Live(one.tenant, one.model, one.plan, now, one.deadline, NOBODY, size=size)
        self.live[one.request] = batch
        for member in command.members:
            if live := self.live.get(member):
                live.batch = batch
        self.batches += 1
        self.batched += size

    def _finished(self, event: BlockFinished, expected: Ns | None) -> Block | None:
        launch = self._orders[event.lane].get(event.launch)
        live = self.live.get(event.request)
        if event.next != event.launch:
            self._begun(event.lane, event.next)
        if launch is None or live is None:
            return None
        block = Block(
            number=self.count,
            tenant=live.tenant,
            model=live.model,
            plan=live.plan,
            request=event.request,
            lane=event.lane,
            cores=launch.cores,
            variant=launch.variant,
            begin=event.begin,
            end=event.end,
            start=Ns(event.at - event.elapsed),
            elapsed=event.elapsed,
            expected=expected,
            size=live.size or 1,
        )
        self._ring.append(tuple(block))
        live.count += 1
        live.computed += event.elapsed
        if self.keep_blocks:
            live.blocks.append(block)
        self.count += 1
        return block

    def _begun(self, lane: LaneId, launch: LaunchId | None) -> None:
        """`lane` goes on with `launch`: what it was told before is done or superseded."""
        orders = self._orders[lane]
        if launch is None:
            return  # an order may be on its way to the lane
        for number in [number for number in orders if number < launch]:
            del orders[number]


def read_blocks(journal: Path, blocks_max: int = JOURNAL_BLOCKS_MAX) -> list[Block]:
    """The last `blocks_max` blocks of a journal. Raises UserError."""
    timeline = Timeline(blocks_max)
    try:
        with journal.open("rb") as lines:
            _, entries = read(lines, str(journal))
            for entry in entries:
                timeline.note(entry.now, entry.event, entry.commands)
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror}", where=str(journal)) from error
    return timeline.blocks()
