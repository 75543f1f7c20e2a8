"""What the scheduler is told at the start: lanes, models, tenants, policy. Plain data."""

from __future__ import annotations

import msgspec

from tenantdl.ids import CoreId, LaneId, ModelId, TenantId
from tenantdl.units import MS, Ns


class LaneSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A lane and the cores that its process owns."""

    lane: LaneId
    cores: tuple[CoreId, ...]


class ModelSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`plans[p][s]`: first guess of the cost of segment s of plan p on one core, in ns."""

    model: ModelId
    plans: tuple[tuple[int, ...], ...]


class TenantSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`queue_max`: requests of the tenant inside the scheduler at once, waiting or running.
    `arenas`: how many of them can be under way (running or parked) at once."""

    tenant: TenantId
    queue_max: int
    arenas: int


class SchedulerConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`policy`: a key of `policies.POLICIES`. `block_target`: how long a block should run;
    `blocks_max`: most blocks of one launch, after which the order is weighed again.
    `refuse_infeasible`: refuse at arrival what could not be done in time on an empty machine.
    `attempts_max`: how often a request may be started before a lost lane means refusal."""

    policy: str
    lanes: tuple[LaneSpec, ...]
    models: tuple[ModelSpec, ...]
    tenants: tuple[TenantSpec, ...]
    block_target: Ns = Ns(3 * MS // 2)
    blocks_max: int = 16
    refuse_infeasible: bool = False
    attempts_max: int = 2
