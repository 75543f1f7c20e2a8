"""What goes into a batcher (events) and what comes out (commands). Frozen, typed, JSON-able.

A `Batch` is the unit of work that batching hands to the layer below: run these requests together on
this slot, beginning in [earliest, latest]. That layer may change cores and variants as long as the
batch ends by latest + the time it was planned for, and answers with `Finished`.
"""

from __future__ import annotations

import enum
from typing import NewType

import msgspec

from tenantdl.ids import RequestId
from tenantdl.units import Ns

QueueId = NewType("QueueId", int)
SlotId = NewType("SlotId", int)
BatchId = NewType("BatchId", int)


class Request(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    """`deadline`: when the answer should be with the client. `group`: which of the queue's
    applications or shape buckets it belongs to, whose run times are learned apart."""

    id: RequestId
    arrived: Ns
    deadline: Ns
    group: int = 0


class _Message(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    pass


class Arrived(_Message, frozen=True, tag=True):
    """Requests of one queue, all that came since the last event of its kind."""

    queue: QueueId
    requests: tuple[Request, ...]


class Finished(_Message, frozen=True, tag=True):
    """`slot` has run `batch` from `began` on in `elapsed`. `works`: what each request of it would
    have taken alone, where that is known afterwards (from its length, its exit); else empty."""

    slot: SlotId
    batch: BatchId
    began: Ns
    elapsed: Ns
    works: tuple[Ns, ...] = ()


class Cancelled(_Message, frozen=True, tag=True):
    """The client of a request has gone. Ignored when it does not wait any more."""

    queue: QueueId
    request: Request


class Retimed(_Message, frozen=True, tag=True):
    """From now on batches of `queue` are expected to take `times` (of size 1, 2, …) ns."""

    queue: QueueId
    times: tuple[Ns, ...]


class Pressure(_Message, frozen=True, tag=True):
    """Batches of `queue` are predicted to run `slowdown` times as long as alone (at least 1)."""

    queue: QueueId
    slowdown: float


class Tick(_Message, frozen=True, tag=True):
    """The time asked for by `next_wakeup` has come."""


class Batch(_Message, frozen=True, tag=True):
    """Run `requests` together on `slot`. `earliest`: when they and the slot are there; `latest`:
    the last start that keeps the tightest deadline; `planned`: how long it is expected to take."""

    batch: BatchId
    queue: QueueId
    slot: SlotId
    requests: tuple[Request, ...]
    earliest: Ns
    latest: Ns
    planned: Ns


class Why(enum.Enum):
    """Why a request is dropped."""

    TOO_LATE = "too_late"
    FOR_THE_BATCH = "for_the_batch"
    CANCELLED = "cancelled"


class Drop(_Message, frozen=True, tag=True):
    """Refuse `request`: it could not finish in time (TOO_LATE), or only in a batch so small that
    those behind it would be late (FOR_THE_BATCH)."""

    queue: QueueId
    request: Request
    why: Why


Event = Arrived | Finished | Cancelled | Retimed | Pressure | Tick
Command = Batch | Drop
