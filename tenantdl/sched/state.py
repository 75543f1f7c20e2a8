"""What the book keeps of lanes and tenants, and what it counts."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from tenantdl.ids import LaneId
from tenantdl.sched.config import TenantSpec
from tenantdl.sched.messages import Launch, LaunchId
from tenantdl.sched.queue import RankedQueue
from tenantdl.units import Ns

_NEVER = Ns(0)
# Answers that a tenant's lateness is judged by.
_LATENESS_LENGTH = 64


@dataclass(slots=True)
class Lane:
    """`running`: the launch that the lane is known to run; its present block began at `boundary`.
    `pending`: launches issued after it, oldest first. Each may have been superseded by the next.
    `masks`: the core groups of all these; `held` is their union, and nobody else's meanwhile."""

    id: LaneId
    bit: int
    ready: bool = False
    running: Launch | None = None
    boundary: Ns = _NEVER
    pending: list[Launch] = field(default_factory=list)
    masks: dict[LaunchId, int] = field(default_factory=dict)
    held: int = 0
    pressure: int = 0
    sensitivity: int = 0


@dataclass(slots=True)
class Tenant:
    """A tenant's waiting requests and free arenas. `live`: requests of all states not answered.
    `used`: core time spent lately (ns, halved every second). `lateness`: of its last answers,
    latency over target in 1/1000."""

    spec: TenantSpec
    queue: RankedQueue
    arenas: list[int]
    live: int = 0
    used: int = 0
    lateness: deque[int] = field(default_factory=lambda: deque(maxlen=_LATENESS_LENGTH))


@dataclass(slots=True)
class Counts:
    """What the scheduler has done so far. `conflicts`: launches that got fewer cores than wanted;
    `resizes`, `migrations`: of a request's core group, and to another lane, between its blocks;
    `expected`: ns that the block which finished last was expected to take in its company."""

    launches: int = 0
    conflicts: int = 0
    resizes: int = 0
    migrations: int = 0
    expected: Ns = _NEVER
