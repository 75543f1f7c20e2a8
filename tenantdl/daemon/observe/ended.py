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
    """A request that is not answered yet. `launched`: a lane was told to run it. `blocks`: those it
    has run, kept only where somebody wants them; `count` and `computed` are kept always."""

    tenant: TenantId
    model: ModelId
    plan: int
    arrived: Ns
    deadline: Ns
    origin: Origin
    launched: bool = False
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
        return self.live.computed

    @property
    def blocks(self) -> int:
        """How many blocks it ran."""
        return self.live.count
