"""A journal replays to the same commands, and says so when it does not."""

from __future__ import annotations

import pytest

from tenantdl.errors import InvariantError, UserError
from tenantdl.ids import CoreId, LaneId, ModelId, RequestId, TenantId
from tenantdl.sched.config import LaneSpec, ModelSpec, SchedulerConfig, TenantSpec, one_core_plan
from tenantdl.sched.journal import entry_line, header_line, read, replay
from tenantdl.sched.messages import (
    BlockFinished,
    Event,
    LaneReady,
    LaunchId,
    LaunchStarted,
    RequestArrived,
)
from tenantdl.sched.scheduler import Scheduler
from tenantdl.units import MS, Ns

CONFIG = SchedulerConfig(
    policy="edf",
    lanes=(LaneSpec(LaneId(0), (CoreId(0),)),),
    models=(ModelSpec(ModelId("m"), (one_core_plan((2 * MS, 2 * MS)),)),),
    tenants=(TenantSpec(TenantId("t"), queue_max=4, arenas=1),),
)
LANE, REQUEST, LAUNCH = LaneId(0), RequestId(1), LaunchId(1)
EVENTS: list[Event] = [
    LaneReady(LANE),
    RequestArrived(REQUEST, TenantId("t"), ModelId("m"), 0, Ns(9 * MS), Ns(99 * MS), 0),
    LaunchStarted(LANE, LAUNCH),
    BlockFinished(LANE, LAUNCH, REQUEST, 0, 1, Ns(MS), Ns(3 * MS), LAUNCH),
    BlockFinished(LANE, LAUNCH, REQUEST, 1, 2, Ns(MS), Ns(4 * MS), None),
]


@pytest.fixture
def journal() -> list[bytes]:
    scheduler = Scheduler(CONFIG)
    lines = [header_line(CONFIG)]
    for number, event in enumerate(EVENTS):
        now = Ns(number * MS)
        lines.append(entry_line(now, event, scheduler.handle(event, now)))
    return lines


def test_replay_agrees(journal: list[bytes]) -> None:
    assert replay(journal).agreed == len(EVENTS)


def test_what_is_read_is_what_was_written(journal: list[bytes]) -> None:
    config, entries = read(journal)
    assert config == CONFIG
    assert [entry.event for entry in entries] == EVENTS


def test_other_commands_are_found(journal: list[bytes]) -> None:
    journal[2] = journal[2].replace(b'"arena":0', b'"arena":1')
    with pytest.raises(InvariantError, match="entry 2 gives other commands"):
        replay(journal)


@pytest.mark.parametrize(
    ("line", "text", "message"),
    [
        (0, b"", "not a journal"),
        (0, b'{"format":1}', "not a journal"),
        (3, b'[1,{"type":"Nonsense"},[]]', "line 4"),
        (3, b"[1,", "line 4"),
    ],
)
def test_what_is_no_journal_is_refused(
    journal: list[bytes], line: int, text: bytes, message: str
) -> None:
    journal[line] = text
    with pytest.raises(UserError, match=message):
        replay(journal, "x.jsonl")


def test_another_format_is_refused(journal: list[bytes]) -> None:
    journal[0] = journal[0].replace(b'"format":3', b'"format":9')
    with pytest.raises(UserError, match="format 9"):
        replay(journal)
