"""Which request ran on which lane, when: taken from the scheduler's journal. Times in ns."""

from __future__ import annotations

from collections import deque
from pathlib import Path
from typing import NamedTuple

from tenantdl.ids import CoreId, LaneId, ModelId, RequestId, TenantId
from tenantdl.sched.config import ModelSpec
from tenantdl.sched.journal import read
from tenantdl.sched.messages import (
    BlockFinished,
    Gathered,
    Launch,
    LaunchId,
    ModelAdded,
    RequestArrived,
)
from tenantdl.units import MS, Ns

WINDOW = Ns(250 * MS)
_BLOCKS_MAX = 5_000_000


class Block(NamedTuple):
    """A block that ran. `preempted`: another request took the lane at its end."""

    lane: LaneId
    tenant: TenantId
    request: RequestId
    begin: Ns
    end: Ns
    preempted: bool


class Timeline(NamedTuple):
    """The blocks of the window of `WINDOW` ns with the most preemptions, times from its start.
    `total`, `preemptions`, `busy`: of the whole run (blocks, preemptions, ns in blocks by lane)."""

    lanes: dict[LaneId, tuple[CoreId, ...]]
    blocks: list[Block]
    total: int
    preemptions: int
    busy: dict[LaneId, int]


def read_timeline(journal: Path, *, after: int = 0) -> Timeline:
    """Read a journal, without its first `after` requests. Raises UserError if it is none."""
    with journal.open("rb") as lines:
        config, entries = read(lines, str(journal))
        tenants: dict[RequestId, TenantId] = {}
        plans: dict[RequestId, int] = {}
        lengths = {key: n for model in config.models for key, n in _lengths(model)}
        launches: dict[LaunchId, RequestId] = {}
        blocks: deque[Block] = deque(maxlen=_BLOCKS_MAX)
        for entry in entries:
            for command in entry.commands:
                if isinstance(command, Launch):
                    launches[command.launch] = command.request
                elif isinstance(command, Gathered) and max(command.members) > after:
                    one = command.batch
                    tenants[one.request] = one.tenant
                    plans[one.request] = lengths[one.model, one.plan]
            match entry.event:
                case ModelAdded() as added:
                    lengths.update(_lengths(added.spec))
                case RequestArrived() as arrived if arrived.request > after:
                    tenants[arrived.request] = arrived.tenant
                    plans[arrived.request] = lengths[arrived.model, arrived.plan]
                case BlockFinished() as done if (
                    done.request in tenants and len(blocks) < _BLOCKS_MAX
                ):
                    blocks.append(
                        Block(
                            lane=done.lane,
                            tenant=tenants[done.request],
                            request=done.request,
                            begin=Ns(done.at - done.elapsed),
                            end=done.at,
                            preempted=done.end < plans[done.request]
                            and done.next is not None
                            and launches[done.next] != done.request,
                        )
                    )
                case _:
                    pass
    busy = {spec.lane: 0 for spec in config.lanes}
    for block in blocks:
        busy[block.lane] += block.end - block.begin
    return Timeline(
        lanes={spec.lane: spec.cores for spec in config.lanes},
        blocks=_window(list(blocks)),
        total=len(blocks),
        preemptions=sum(block.preempted for block in blocks),
        busy=busy,
    )


def _lengths(model: ModelSpec) -> list[tuple[tuple[ModelId, int], int]]:
    """Segments of each of a model's plans."""
    counts = (len(plan.variants[0].costs[0]) for plan in model.plans)
    return [((model.model, number), count) for number, count in enumerate(counts)]


def _window(blocks: list[Block]) -> list[Block]:
    """The blocks around the most eventful `WINDOW`, shifted to begin at 0."""
    ordered = sorted(blocks, key=lambda block: block.end)
    best, most, first, score = 0, -1, 0, 0
    for block in ordered:
        score += 1 + 1000 * block.preempted
        while block.end - ordered[first].end > WINDOW:
            score -= 1 + 1000 * ordered[first].preempted
            first += 1
        if score > most:
            best, most = first, score
    if not ordered:
        return []
    start = ordered[best].begin
    return [
        block._replace(begin=Ns(block.begin - start), end=Ns(block.end - start))
        for block in ordered[best:]
        if block.begin - start <= WINDOW
    ]
