"""Idle work, and the pages that a fork has to find again."""

from __future__ import annotations

import mmap
import os
import resource
from collections.abc import Callable
from pathlib import Path

from tenantdl.exec.idle import aside
from tenantdl.exec.lane_memory import Mapping
from tenantdl.exec.mapped import find_pages

PAGES = 2000


def test_idle_work_leaves_others_as_they_are() -> None:
    seen: list[int] = []
    aside(lambda: seen.append(os.sched_getscheduler(0)))
    aside(lambda: seen.append(os.sched_getscheduler(0)), idle=False)
    assert seen == [os.SCHED_IDLE, os.sched_getscheduler(0)]
    assert os.sched_getscheduler(0) != os.SCHED_IDLE


def faults(
    memory: mmap.mmap, prepare: Callable[[], None], *, write: bool, pages: int = PAGES
) -> int:
    """How many page faults a fork has that goes through `memory`, after it was prepared."""
    end, begin = os.pipe()
    child = os.fork()
    if not child:
        prepare()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for page in range(0, pages * mmap.PAGESIZE, mmap.PAGESIZE):
            if write:
                memory[page] = 1
            else:
                memory[page]
        after = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        os.write(begin, str(after - before).encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(begin)
    with open(end) as said:
        return int(said.read())


def test_a_fork_finds_the_pages_of_shared_memory_at_once() -> None:
    shared = Mapping.create("pages", 2 * PAGES * mmap.PAGESIZE)
    shared.memory[: PAGES * mmap.PAGESIZE] = b"x" * (PAGES * mmap.PAGESIZE)
    held = os.fstat(shared.fd).st_blocks
    assert faults(shared.memory, lambda: None, write=True) > PAGES // 2
    assert faults(shared.memory, find_pages, write=True) < PAGES // 20
    assert os.fstat(shared.fd).st_blocks == held  # what nobody has written takes no memory
    shared.close()


def test_a_fork_finds_the_pages_of_a_file_that_is_only_read(tmp_path: Path) -> None:
    file = tmp_path / "weights"
    file.write_bytes(b"x" * (8 * PAGES * mmap.PAGESIZE))
    with file.open("rb") as stream:
        weights = mmap.mmap(stream.fileno(), 0, prot=mmap.PROT_READ, flags=mmap.MAP_SHARED)
    # The system finds some at a time.
    plain = faults(weights, lambda: None, write=False, pages=8 * PAGES)
    assert faults(weights, find_pages, write=False, pages=8 * PAGES) < plain // 2
