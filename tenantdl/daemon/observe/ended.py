"""A request's life as seen from outside: where it came from, that it runs, how it ended."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from tenantdl.ids import ModelId, RequestId, TenantId
from tenantdl.load.status import Block
from tenantdl.sched.messages import Reason
from tenantdl.units import Ns


class Origin(NamedTuple):
    """What a client said of its request: an id of its own, and a W3C traceparent."""

    id: str = ""
    traceparent: str = ""


NOBODY = Origin()


@dataclass(slots=True)
class Live:
    """A request that is not answered yet, or a batch of `size` of them, which each member names.
    `launched`: a lane was told to run it. `blocks`: those it has run, kept only where they are
    wanted; `count` and `computed` are kept always. `counted`: as an execution."""

    tenant: TenantId
    model: ModelId
    plan: int
    arrived: Ns
    deadline: Ns
    origin: Origin
    launched: bool = False
    size: int | None = None
    batch: Live | None = None
    counted: bool = False
    count: int = 0
    computed: int = 0
    blocks: list[Block] = field(default_factory=list)


class Ended(NamedTuple):
    """A request that was answered `at`, or refused for `reason`."""

    request: RequestId
    live: Live
    at: Ns
    reason: Reason | None

    @property
    def computed(self) -> int:
        """Time in blocks, in ns."""
        return self.ran.computed

    @property
    def blocks(self) -> int:
        """How many blocks it ran."""
        return self.ran.count

    @property
    def ran(self) -> Live:
        """What ran: the request, or the batch that it was in."""
        return self.live.batch or self.live
