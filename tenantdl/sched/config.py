"""What the scheduler is told at the start: lanes, models, tenants, policy. Plain data."""

from __future__ import annotations

import msgspec

from tenantdl.ids import CoreId, LaneId, ModelId, TenantId
from tenantdl.units import MS, Ns


class LaneSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A lane and the cores that its process owns."""

    lane: LaneId
    cores: tuple[CoreId, ...]


class VariantSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One implementation of a plan's segments. `costs[c][s]`: first guess of the cost of segment s
    on `cores[c]` cores (ascending), in ns, undisturbed. `slowdowns`: in 1/1000, at pressures spaced
    evenly from none to a machine full of the most demanding variants. `pressure`: what a machine
    full of this one exerts, in 1/1000 of that."""

    cores: tuple[int, ...]
    costs: tuple[tuple[int, ...], ...]
    slowdowns: tuple[int, ...] = (1000,)
    pressure: int = 0


class PlanSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A static plan, in one or more variants with equal segments and `cores`. The first variant is
    the one that is fastest when nothing else runs."""

    variants: tuple[VariantSpec, ...]


class Batches(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Plans of a model for `sizes[i]` requests together, ascending from 1: number `plans[i]`."""

    sizes: tuple[int, ...]
    plans: tuple[int, ...]


class ModelSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A model and its plans. `arenas`: how many of its requests can be under way (running or
    parked) at once, whoever's they are; None: as many as its tenants may have. `batches`: what may
    run together, one entry a shape bucket."""

    model: ModelId
    plans: tuple[PlanSpec, ...]
    arenas: int | None = None
    batches: tuple[Batches, ...] = ()


class TenantSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`queue_max`: requests of the tenant inside the scheduler at once, waiting or running.
    `arenas`: how many of them can be under way at once, whichever models they are for. `share`: of
    the machine's core time that it is entitled to, in 1/1000 (0: no claim); `load`: core time that
    its stated load takes, in 1/1000 of one core (0: none stated). Policies that prepare for a load
    also want to know `model` (that it mostly calls), `qos` and the expected `requests_ks` (in 1000
    seconds). `batching`: how its requests are batched, a name that
    `batching.policies.policy` knows; nothing: not at all. `batch_max`: of so many at most. `queue`:
    tenants with an equal one share their queues, on the terms of whoever's request comes first and
    with the tightest `qos` (nothing: a queue of its own)."""

    tenant: TenantId
    queue_max: int
    arenas: int
    share: int = 0
    load: int = 0
    model: ModelId | None = None
    qos: Ns = Ns(0)
    requests_ks: int = 0
    batching: str = ""
    batch_max: int = 16
    queue: str = ""


class Overheads(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a change costs, in ns: `handover` of a launch to an idle lane, `resize` of a core group
    between two blocks of a request, `migrate` of a request to another lane."""

    handover: Ns = Ns(0)
    resize: Ns = Ns(0)
    migrate: Ns = Ns(0)


# `reserve` of a daemon, whose clients share its cores.
RESERVE = 100


class SchedulerConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`policy`: a name that `policies.find` knows. `block_target`: how long a block should run;
    `blocks_max`: most blocks of one launch, after which the order is weighed again.
    `refuse_infeasible`: refuse at arrival what cannot be in time (`admission`).
    `attempts_max`: how often a request may be started before a lost lane means refusal.
    `domains`: cores that share a last-level cache. `ahead`: tell lanes what comes next while they
    still run; worth it where waking an idle lane is dear. `batch_slack`: batches that wait for more
    requests start so much before they have to. `reserve`: of the time that a request has, in
    1/1000, what its way from and to its client takes: deadlines are so much earlier."""

    policy: str
    lanes: tuple[LaneSpec, ...]
    models: tuple[ModelSpec, ...]
    tenants: tuple[TenantSpec, ...]
    block_target: Ns = Ns(3 * MS // 2)
    blocks_max: int = 16
    refuse_infeasible: bool = False
    attempts_max: int = 2
    domains: tuple[tuple[CoreId, ...], ...] = ()
    overheads: Overheads = Overheads()
    ahead: bool = True
    batch_slack: Ns = Ns(0)
    reserve: int = 0


def one_core_plan(costs: tuple[int, ...]) -> PlanSpec:
    """A plan of one variant for one core, with `costs` of its segments in ns."""
    return PlanSpec((VariantSpec((1,), (costs,)),))
