"""Batches on a whole daemon with fake backend: gathered, answered one by one, replayed."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tritonclient.utils import InferenceServerException

from tenantdl.load.workload import Workload, parse_workload
from tenantdl.machine import usable_cores
from tenantdl.sched.journal import read, replay
from tenantdl.sched.messages import Gathered
from tests.daemon.test_daemon import FAKES, ask, daemon
from tests.exec.fake_lane_backend import fake_bundle

SEGMENTS = 3


@pytest.fixture(autouse=True)
def _fakes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PYTHONPATH", f"{FAKES}:{FAKES.parents[1]}")
    monkeypatch.setenv("FAKE_ONCE", str(tmp_path / "once"))


def workload(folder: Path, extra: str = "") -> Workload:
    """One tenant whose batches of 1, 2 and 4 all take 30 ms."""
    bundle = fake_bundle(folder, "net", SEGMENTS, 10_000, batches=(1, 2, 4))
    return parse_workload(
        f"""
        bundles = "{folder}"
        machine.cores = [{usable_cores()[0]}]
        [[tenant]]
        name = "t"
        bundle = "{bundle.name}"
        qos_ms = 5000
        {extra}
        """
    )


def gathered(journal: Path) -> list[int]:
    """Sizes of the batches in a journal, which is replayed too."""
    lines = journal.read_bytes().splitlines()
    assert replay(lines, check=True).agreed == len(lines) - 1
    commands = [command for entry in read(lines)[1] for command in entry.commands]
    return [len(c.members) for c in commands if isinstance(c, Gathered)]


@pytest.mark.parametrize("policy", ["eager", "auto"])
def test_requests_run_together_and_get_their_own_answers(policy: str, tmp_path: Path) -> None:
    journal = tmp_path / "journal.jsonl"
    with daemon(workload(tmp_path, f'batching = "{policy}"'), journal) as running:
        jobs = list(range(13))
        with ThreadPoolExecutor(13) as pool:
            answers = list(pool.map(lambda first: ask(running.url, "net", first), jobs))
    assert answers == [first + SEGMENTS for first in jobs]
    sizes = gathered(journal)
    assert sum(sizes) == 13
    assert max(sizes) > 1
    assert all(size <= 4 for size in sizes)


def test_batches_are_no_larger_than_the_tenant_says_and_may_be_off(tmp_path: Path) -> None:
    for extra, most in (("batch_max = 2", 2), ('batching = "off"', 0)):
        folder = tmp_path / str(most)
        folder.mkdir()
        journal = folder / "journal.jsonl"
        with (
            daemon(workload(folder, extra), journal) as running,
            ThreadPoolExecutor(9) as pool,
        ):
            list(pool.map(lambda first, url=running.url: ask(url, "net", first), range(9)))
        assert max(gathered(journal), default=0) == most


def test_one_that_fails_does_not_take_its_batch_along(tmp_path: Path) -> None:
    journal = tmp_path / "journal.jsonl"
    with daemon(workload(tmp_path, 'batching = "eager"'), journal) as running:

        def one(second: int) -> float | str:
            try:
                return ask(running.url, "net", 5, second)
            except InferenceServerException as error:
                return str(error)

        with ThreadPoolExecutor(5) as pool:
            answers = list(pool.map(one, [0, 0, -2, 0, 0]))
    assert [answer for answer in answers if isinstance(answer, float)] == [5 + SEGMENTS] * 4
    assert "execution_failed" in str(answers[2])
