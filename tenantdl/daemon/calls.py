"""What passes between the HTTP routes and the engine: a call, or a refusal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tenantdl.daemon.observe.ended import NOBODY, Origin
from tenantdl.ids import ModelId, TenantId
from tenantdl.load.protocol import Array
from tenantdl.sched.messages import Reason
from tenantdl.units import Ns


class Refused(Exception):
    """The scheduler's refusal of a request, on its way to the client."""

    def __init__(self, reason: Reason) -> None:
        self.reason = reason
        super().__init__(reason.value)


@dataclass(slots=True, frozen=True)
class Call:
    """One inference: checked inputs for plan `plan`. `arrived`: when its first byte was seen;
    `timeout`: refused if not done so long after, in ns (None: the tenant's).
    `origin`: what the client calls it."""

    tenant: TenantId
    model: ModelId
    plan: int
    inputs: Mapping[str, Array]
    arrived: Ns
    timeout: Ns | None = None
    priority: int | None = None
    origin: Origin = NOBODY
