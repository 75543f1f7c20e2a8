"""What a daemon says of itself at GET /status: shared by the daemon, the dashboard and the CLI.

Everything is about the last `window_s` seconds unless it says otherwise. Times in milliseconds, of
blocks in nanoseconds on the daemon's clock; shares from 0 to 1.

Format history
  1  first form.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from tenantdl.ids import CoreId, LaneId, ModelId, RequestId, TenantId
from tenantdl.units import Ns

FORMAT = 1
STATUS_BYTES_MAX = 64 * 1024**2


class _Part(msgspec.Struct, frozen=True, kw_only=True):
    pass


class Block(NamedTuple):
    """A block that ran: segments [begin, end) of `request` on `cores` from `start` for `elapsed`,
    in ns on the daemon's clock. `number` counts all blocks; `expected`: what the scheduler's costs
    said it would take (None: not known). `size`: how many requests ran in it, as a batch."""

    number: int
    tenant: TenantId
    model: ModelId
    plan: int
    request: RequestId
    lane: LaneId
    cores: tuple[CoreId, ...]
    variant: int
    begin: int
    end: int
    start: Ns
    elapsed: Ns
    expected: Ns | None
    size: int = 1


class TenantStatus(_Part, frozen=True):
    """A tenant. `attainment`: of all that ended, the share that was answered in time (None: nothing
    ended). `histogram`: answers by latency, as (upper end in ms, count), ascending. `core_share`:
    of the machine's core time. `queue_ms`, `compute_ms`: means of answered requests; `alone_ms`:
    what its fastest model is said to take on an empty machine. `seconds`: how many requests ended
    and how many of them in time, for each second, the present one last."""

    name: str
    models: tuple[str, ...]
    qos_ms: float
    queue: int
    queue_max: int
    answered: int
    in_time: int
    refused: dict[str, int]
    attainment: float | None
    rate: float
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    queue_ms: float | None
    compute_ms: float | None
    alone_ms: float | None
    core_share: float
    histogram: tuple[tuple[float, int], ...]
    seconds: tuple[tuple[int, int], ...]


class ModelStatus(_Part, frozen=True):
    """A model since the start. `variants`: blocks by variant, the first (0) being the fastest on an
    empty machine. `actual_over_expected`: time of its blocks over what was predicted for them."""

    name: str
    version: str
    blocks: int
    variants: dict[int, int]
    actual_over_expected: float | None


class LaneStatus(_Part, frozen=True):
    """A lane. `lost`: how often its process died since the start."""

    lane: int
    cores: tuple[int, ...]
    ready: bool
    lost: int


class CoreStatus(_Part, frozen=True):
    """A core. `busy`: share of its time in blocks."""

    core: int
    busy: float


class SchedulerStatus(_Part, frozen=True):
    """What the scheduler did since the start (`sched.state.Counts`). There were `batches` of
    `batched` requests in all."""

    policy: str
    launches: int
    conflicts: int
    resizes: int
    migrations: int
    blocks: int
    batches: int
    batched: int


class Advice(_Part, frozen=True):
    """How many cores this load wants, beside those there are; `why` is for people."""

    cores: int
    wanted: int
    why: str


class Status(_Part, frozen=True):
    """The document. `blocks`: those from the number asked for on, of which `next_block` will be the
    next; `now`: on the clock of the blocks."""

    format: int
    version: str
    workload: str
    pid: int
    ready: bool
    uptime_s: float
    window_s: float
    now: int
    tenants: tuple[TenantStatus, ...]
    models: tuple[ModelStatus, ...]
    lanes: tuple[LaneStatus, ...]
    cores: tuple[CoreStatus, ...]
    scheduler: SchedulerStatus
    advice: Advice
    blocks: tuple[Block, ...]
    next_block: int
