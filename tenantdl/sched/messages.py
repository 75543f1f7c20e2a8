"""What goes into the scheduler (events) and what comes out (commands). Frozen, typed, JSON-able.

Times are `Ns` on one monotonic clock. A *launch* is the order to run consecutive blocks of one
request on one lane, with the cores of the group that it is granted: the lane's own and those of
idle neighbours; no core is in two groups at once. The lane looks for a newer order at the end of
each block. A lane has one place for an order beside the one it runs: a new Launch supersedes
whatever still waits there, and the `launch` and `next` fields of what the lane reports tell which
orders were begun.
Windows follow Clockwork (OSDI '20 §5.2): a command carries when it should begin.
"""

from __future__ import annotations

import enum
from typing import NewType

import msgspec

from tenantdl.ids import CoreId, LaneId, ModelId, RequestId, TenantId
from tenantdl.sched.config import ModelSpec, TenantSpec
from tenantdl.units import Ns

LaunchId = NewType("LaunchId", int)


class Reason(enum.Enum):
    """Why a request is refused."""

    QUEUE_FULL = "queue_full"
    RATE_EXCEEDED = "rate_exceeded"
    DEADLINE_INFEASIBLE = "deadline_infeasible"
    EXPIRED = "expired"
    LANE_LOST = "lane_lost"
    EXECUTION_FAILED = "execution_failed"
    CANCELLED = "cancelled"


class _Message(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    pass


class RequestArrived(_Message, frozen=True, tag=True):
    """A request of `tenant` for plan number `plan` of `model`.

    `deadline`: when it should be done (its QoS). `expires`: after this nobody wants the answer; a
    request that is not running by then is refused. Lower `priority` goes first.
    """

    request: RequestId
    tenant: TenantId
    model: ModelId
    plan: int
    deadline: Ns
    expires: Ns
    priority: int


class LaunchStarted(_Message, frozen=True, tag=True):
    """An idle lane has taken up `launch`."""

    lane: LaneId
    launch: LaunchId


class BlockFinished(_Message, frozen=True, tag=True):
    """Segments [begin, end) of `request` ran in `elapsed` and were done `at` (reports may be read
    later); the lane goes on with launch `next` (the same one, another, or None: idle)."""

    lane: LaneId
    launch: LaunchId
    request: RequestId
    begin: int
    end: int
    elapsed: Ns
    at: Ns
    next: LaunchId | None


class BlockFailed(_Message, frozen=True, tag=True):
    """A kernel of `request` raised. The lane lives and goes on with `next`."""

    lane: LaneId
    launch: LaunchId
    request: RequestId
    next: LaunchId | None


class LaneReady(_Message, frozen=True, tag=True):
    """The lane has loaded every model and waits for orders."""

    lane: LaneId


class LaneLost(_Message, frozen=True, tag=True):
    """The lane's process is dead: nothing of it writes to memory any more."""

    lane: LaneId


class Cancelled(_Message, frozen=True, tag=True):
    """The client of `request` has gone. Unknown and finished requests are ignored."""

    request: RequestId


class Tick(_Message, frozen=True, tag=True):
    """The time asked for by `next_wakeup` has come."""


class SlowdownsLearned(_Message, frozen=True, tag=True):
    """A predictor's new table for one variant of a plan: slowdowns in 1/1000 at evenly spaced
    pressures (`config.VariantSpec`)."""

    model: ModelId
    plan: int
    variant: int
    slowdowns: tuple[int, ...]


class ModelAdded(_Message, frozen=True, tag=True):
    """Lanes can run one more model. A new version of a model is another `ModelId`, so that requests
    for the old one end as they began."""

    spec: ModelSpec


class ModelRemoved(_Message, frozen=True, tag=True):
    """The model goes; all its requests have been answered."""

    model: ModelId


class TenantDeclared(_Message, frozen=True, tag=True):
    """One more tenant, or other terms for one that is there."""

    spec: TenantSpec


class TenantRemoved(_Message, frozen=True, tag=True):
    """The tenant goes; all its requests have been answered."""

    tenant: TenantId


class Launch(_Message, frozen=True, tag=True):
    """Run `request` from segment `begin` on `cores` in `variant`, block by block: a block ends at
    each of `ends`.

    `wanted`: how many cores the policy would have given it; fewer were free if it got fewer.
    `arena`: which of the model's arenas holds its activations. `preempt`: take this up at the next
    end of a block, else when the present launch is through. `earliest`, `latest`: the window in
    which it has to begin for the deadline to hold on an undisturbed lane (latest may have passed).
    """

    launch: LaunchId
    lane: LaneId
    request: RequestId
    arena: int
    begin: int
    ends: tuple[int, ...]
    preempt: bool
    earliest: Ns
    latest: Ns
    cores: tuple[CoreId, ...]
    variant: int
    wanted: int

    @property
    def end(self) -> int:
        """The segment at which the launch is through."""
        return self.ends[-1]


class Complete(_Message, frozen=True, tag=True):
    """All segments of `request` ran: answer it. The last word about it."""

    request: RequestId


class Reject(_Message, frozen=True, tag=True):
    """Refuse `request`. The last word about it: no lane touches its memory any more."""

    request: RequestId
    reason: Reason


class Gathered(_Message, frozen=True, tag=True):
    """From now on `batch.request` stands for `members`, in their order: launches of it take the
    members' inputs in and give their outputs back. Each of them gets a last word of its own, after
    which `Dissolved` follows."""

    batch: RequestArrived
    members: tuple[RequestId, ...]


class Dissolved(_Message, frozen=True, tag=True):
    """Nothing stands for the members of `request` any more."""

    request: RequestId


Event = (
    RequestArrived
    | LaunchStarted
    | BlockFinished
    | BlockFailed
    | LaneReady
    | LaneLost
    | Cancelled
    | SlowdownsLearned
    | ModelAdded
    | ModelRemoved
    | TenantDeclared
    | TenantRemoved
    | Tick
)
Command = Launch | Complete | Reject | Gathered | Dissolved
