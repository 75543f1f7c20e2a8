"""What passes between the HTTP routes and the engine: a call, or a refusal."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from tenantdl.daemon.observe.ended import NOBODY, Origin
from tenantdl.daemon.statistics import Timing
from tenantdl.ids import ModelId, TenantId
from tenantdl.load.protocol import Array
from tenantdl.sched.messages import BlockFinished, Reason
from tenantdl.units import Ns


class Refused(Exception):
    """The scheduler's refusal of a request, on its way to the client. `stage`: the module of an
    application that was refused."""

    def __init__(self, reason: Reason, stage: str = "") -> None:
        self.reason, self.stage = reason, stage
        super().__init__(reason.value)


@dataclass(slots=True, frozen=True)
class Call:
    """One inference: checked inputs for plan `plan`. `arrived`: when its first byte was seen;
    `timeout`: refused if not done so long after, in ns (None: the tenant's). `deadline`: when it
    should be done (None: the tenant's target after `arrived`). `origin`: what the client calls
    it."""

    tenant: TenantId
    model: ModelId
    plan: int
    inputs: Mapping[str, Array]
    arrived: Ns
    timeout: Ns | None = None
    priority: int | None = None
    origin: Origin = NOBODY
    deadline: Ns | None = None


@dataclass(slots=True)
class Ticket:
    """A call with its slot. `lent`: the answer is views of the slot, which whoever waits for it
    gives back."""

    call: Call
    slot: int
    answer: asyncio.Future[dict[str, Array]]
    timing: Timing
    deadline: Ns
    lent: bool = False

    def ran(self, event: BlockFinished) -> None:
        """A block of it was run."""
        self.timing.compute_infer += event.elapsed
        if event.begin == 0:
            submitted = self.call.arrived + self.timing.compute_input
            self.timing.queue = event.at - event.elapsed - submitted

    def ended(self, now: Ns) -> None:
        """It was answered or refused."""
        self.timing.total = now - self.call.arrived
        self.timing.late = now > self.deadline
