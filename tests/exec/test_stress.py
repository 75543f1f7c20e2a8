"""Stressors come up, work, and go when they are told."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tenantdl.errors import ExecutionError, UserError
from tenantdl.exec.neighbour import of_stress
from tenantdl.exec.stress import KINDS
from tenantdl.machine import this_machine


@pytest.mark.parametrize("kind", KINDS)
def test_work_can_be_done_again_and_again(kind: str) -> None:
    work = KINDS[kind]()
    work()
    work()


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]


def test_a_stressor_is_pinned_stops_goes_on_and_ends_with_its_owner() -> None:
    core = this_machine().cores[-1]
    with of_stress("compute", core) as neighbour:
        process = neighbour._process
        assert os.sched_getaffinity(process.pid) == {core}
        neighbour.go()
        assert process.poll() is None
        neighbour.stop()
        while state(process.pid) != "T":
            pass
    assert process.poll() is not None
    with pytest.raises(ExecutionError, match="has died"):
        neighbour.go()


def test_unknown_kinds_are_named() -> None:
    with pytest.raises(UserError, match="stressor 'shout' is unknown"):
        of_stress("shout", this_machine().cores[0])
