"""What the book keeps of lanes, models and tenants, and what it counts."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from tenantdl.ids import LaneId
from tenantdl.sched.config import ModelSpec, TenantSpec
from tenantdl.sched.costs import PlanCosts
from tenantdl.sched.messages import BlockFinished, Launch, LaunchId
from tenantdl.sched.queue import RankedQueue
from tenantdl.units import Ns

_NEVER = Ns(0)
# Answers that a tenant's lateness is judged by.
_LATENESS_LENGTH = 64


@dataclass(slots=True)
class Lane:
    """`running`: the launch that the lane is known to run; its present block began at `boundary`,
    its last one `ended`.
    `pending`: launches issued after it, oldest first. Each may have been superseded by the next.
    `masks`: the core groups of all these; `held` is their union, and nobody else's meanwhile."""

    id: LaneId
    bit: int
    ready: bool = False
    running: Launch | None = None
    boundary: Ns = _NEVER
    ended: Ns = _NEVER
    pending: list[Launch] = field(default_factory=list)
    masks: dict[LaunchId, int] = field(default_factory=dict)
    held: int = 0
    pressure: int = 0
    sensitivity: int = 0


@dataclass(slots=True)
class Model:
    """A model's arenas: `free` ones, the one used last on top, of `made` that were ever needed.
    `live`: its requests of all states not answered."""

    spec: ModelSpec
    costs: tuple[PlanCosts, ...]
    free: list[int] = field(default_factory=list)
    made: int = 0
    live: int = 0

    @property
    def has_arena(self) -> bool:
        """Whether another request could get an arena."""
        return bool(self.free) or self.spec.arenas is None or self.made < self.spec.arenas

    def take_arena(self) -> int:
        """An arena, the lowest numbers first."""
        if self.free:
            return self.free.pop()
        self.made += 1
        return self.made - 1


@dataclass(slots=True)
class Tenant:
    """A tenant's waiting requests. `live`: requests of all states not answered; `under_way`: of
    them with an arena. Lately (ns, halved every second): `used`, the core time it had; `got`, what
    it was said to take (who is slowed down has not had more). `lateness`: of its last answers,
    latency over target in 1/1000."""

    spec: TenantSpec
    queue: RankedQueue
    live: int = 0
    under_way: int = 0
    used: int = 0
    got: int = 0
    lateness: deque[int] = field(default_factory=lambda: deque(maxlen=_LATENESS_LENGTH))


@dataclass(slots=True)
class Usage:
    """Of all tenants together: core time `used` lately; of those with a stated load and no share,
    what they `stated` and what they `got`."""

    used: int = 0
    stated: int = 0
    got: int = 0

    def sum_up(self, tenants: Iterable[Tenant]) -> None:
        """Everybody's, from nothing."""
        self.used = self.stated = self.got = 0
        for tenant in tenants:
            self.add(tenant, tenant.used, tenant.got)
            self.stated += 0 if tenant.spec.share else tenant.spec.load

    def add(self, tenant: Tenant, used: int, got: int) -> None:
        """`tenant` has had so much more."""
        self.used += used
        if tenant.spec.load and not tenant.spec.share:
            self.got += got


@dataclass(slots=True)
class Counts:
    """What was done so far, by what lanes have reported; an order that was superseded before it
    began does not count. `launches`; of these `conflicts`: with fewer cores than wanted; `resizes`,
    `migrations`: of a request's core group, and to another lane, since its last block;
    `handovers`: to an idle lane. `boundaries`: all other passages from block to block. What ends in
    `_ns` is the time that the lane stood still on these occasions, from the end of its last block
    (or the order, if that came later) to the start of the next; but `conflicts_ns` is the time in
    blocks on fewer cores than wanted. `expected`: ns that the block which finished last was
    expected to take in its company. `alarms`: tables of slowdowns that were found far off."""

    launches: int = 0
    conflicts: int = 0
    resizes: int = 0
    migrations: int = 0
    handovers: int = 0
    boundaries: int = 0
    conflicts_ns: int = 0
    resizes_ns: int = 0
    migrations_ns: int = 0
    handovers_ns: int = 0
    boundaries_ns: int = 0
    expected: Ns = _NEVER
    alarms: int = 0

    def block(self, lane: Lane, before: Launch | None, event: BlockFinished) -> None:
        """`lane` has run a block; `before`: the launch of this request that ran before this one."""
        launch = lane.running
        if launch is None:
            return
        gap = max(0, event.at - event.elapsed - max(lane.ended, launch.earliest))
        first = event.begin == launch.begin
        plain = True
        self.launches += first
        if len(launch.cores) < launch.wanted:
            self.conflicts += first
            self.conflicts_ns += event.elapsed
        if first and launch.begin and before is not None:
            if len(before.cores) != len(launch.cores):
                self.resizes += 1
                self.resizes_ns += gap
                plain = False
            if before.lane != launch.lane:
                self.migrations += 1
                self.migrations_ns += gap
                plain = False
        if first and launch.earliest > lane.ended:
            self.handovers += 1
            self.handovers_ns += gap
        elif plain:
            self.boundaries += 1
            self.boundaries_ns += gap
