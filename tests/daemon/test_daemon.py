"""A whole daemon in a subprocess, its lanes running a fake backend: served, killed, overloaded."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from tenantdl.daemon import RunningDaemon, running_daemon
from tenantdl.errors import UserError
from tenantdl.exec.idle import NICE
from tenantdl.load.workload import Workload, parse_workload
from tenantdl.machine import usable_cores
from tenantdl.sched.journal import read, replay
from tenantdl.sched.messages import BlockFinished, LaneLost
from tests.exec.fake_lane_backend import fake_bundle

FAKES = Path(__file__).parents[1] / "exec"
SEGMENTS = 12


@pytest.fixture
def bundles(tmp_path: Path) -> Path:
    """Bundles without kernels: quick (0.2 ms a segment) and slow (10 ms)."""
    fake_bundle(tmp_path, "quick", SEGMENTS, 200)
    fake_bundle(tmp_path, "slow", SEGMENTS, 10_000)
    return tmp_path


def workload(bundles: Path, qos_ms: Sequence[float] = (500, 2000), extra: str = "") -> Workload:
    core = usable_cores()[0]
    text = f"""
        bundles = "{bundles}"
        [machine]
        cores = [{core}]
        [scheduler]
        hang_s = 3.0
        [[tenant]]
        name = "q"
        bundle = "fake:{SEGMENTS}:200"
        qos_ms = {qos_ms[0]}
        [[tenant]]
        name = "s"
        bundle = "fake:{SEGMENTS}:10000"
        qos_ms = {qos_ms[1]}
        {extra}
        """
    return parse_workload(text)


@contextlib.contextmanager
def daemon(workload: Workload, journal: Path) -> Iterator[RunningDaemon]:
    with running_daemon(workload, journal=journal, backend="fake_lane_backend") as running:
        yield running


@pytest.fixture(autouse=True)
def _fakes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PYTHONPATH", f"{FAKES}:{FAKES.parents[1]}")
    monkeypatch.setenv("FAKE_ONCE", str(tmp_path / "once"))


def ask(url: str, model: str, first: float, second: float = 0, timeout: int | None = None) -> float:
    """One inference: `first` plus the number of segments; `second` below zero makes mischief."""
    client = triton.InferenceServerClient(url.removeprefix("http://"), network_timeout=60)
    try:
        x = triton.InferInput("x", [1, 2], "FP32")
        x.set_data_from_numpy(np.array([[first, second]], np.float32))
        answer = client.infer(model, [x], timeout=timeout).as_numpy("y")
        assert answer[0, 1] == second
        return float(answer[0, 0])
    finally:
        client.close()


def lanes(running: RunningDaemon) -> list[psutil.Process]:
    return [
        child
        for child in psutil.Process(running.pid).children()
        if child.name().startswith("tenantdl-lane")
    ]


def test_serving_two_tenants_and_the_journal_replays(bundles: Path, tmp_path: Path) -> None:
    journal = tmp_path / "journal.jsonl"
    with daemon(workload(bundles), journal) as running:
        jobs = [("quick", i) for i in range(12)] + [("slow", i) for i in range(3)]
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda job: ask(running.url, *job), jobs))
        assert answers == [first + SEGMENTS for _, first in jobs]
        processes = [psutil.Process(running.pid), *lanes(running)]
        # Who brings lanes their work does not wait for the end of a block.
        own = os.getpriority(os.PRIO_PROCESS, 0)
        assert [p.nice() for p in processes] == [own, max(NICE, own)]
        client = triton.InferenceServerClient(running.url.removeprefix("http://"))
        stats = client.get_inference_statistics("slow")["model_stats"][0]
        client.close()
        assert stats["inference_count"] == 3
        assert stats["inference_stats"]["compute_infer"]["ns"] >= 3 * SEGMENTS * 10_000_000
    assert len(processes) == 2
    assert not any(process.is_running() for process in processes)
    lines = journal.read_bytes().splitlines()
    assert replay(lines).agreed == len(lines) - 1
    assert sum(isinstance(entry.event, BlockFinished) for entry in read(lines)[1]) >= 15


def test_an_urgent_request_overtakes_a_long_one(bundles: Path, tmp_path: Path) -> None:
    journal = tmp_path / "journal.jsonl"
    with daemon(workload(bundles), journal) as running, ThreadPoolExecutor(1) as pool:
        # A stalled machine may send the second too late: then again.
        for _ in range(5):
            long = pool.submit(ask, running.url, "slow", 1)
            time.sleep(0.03)
            assert ask(running.url, "quick", 2) == 2 + SEGMENTS
            assert long.result() == 1 + SEGMENTS
    events = [entry.event for entry in read(journal.read_bytes().splitlines())[1]]
    blocks = [event for event in events if isinstance(event, BlockFinished)]
    preempted = [b for b in blocks if b.end < SEGMENTS and b.next not in (b.launch, None)]
    assert preempted


def test_a_killed_lane_does_not_take_the_daemon_or_the_request(
    bundles: Path, tmp_path: Path
) -> None:
    (tmp_path / "once").touch()
    journal = tmp_path / "journal.jsonl"
    with daemon(workload(bundles, qos_ms=(30_000, 30_000)), journal) as running:
        (before,) = lanes(running)
        # It dies in the middle of this request, which is run again by its successor.
        assert ask(running.url, "quick", 3, second=-4) == 3 + SEGMENTS
        (after,) = lanes(running)
        assert after.pid != before.pid
    entries = list(read(journal.read_bytes().splitlines())[1])
    assert sum(isinstance(entry.event, LaneLost) for entry in entries) == 1


@pytest.mark.parametrize(("mischief", "status"), [(-1, "503"), (-2, "500"), (-3, "503")])
def test_poison_is_refused_and_the_next_request_is_served(
    bundles: Path, tmp_path: Path, mischief: int, status: str
) -> None:
    """Kills every lane it runs on; raises; hangs."""
    with daemon(workload(bundles, qos_ms=(60_000, 60_000)), tmp_path / "j") as running:
        with pytest.raises(InferenceServerException) as error:
            ask(running.url, "quick", 0, second=mischief)
        assert error.value.status() == status
        assert ask(running.url, "quick", 4) == 4 + SEGMENTS


def test_every_request_gets_one_answer_while_lanes_are_shot(bundles: Path, tmp_path: Path) -> None:
    journal = tmp_path / "journal.jsonl"

    def outcome(first: int) -> str:
        try:
            value = ask(running.url, "slow" if first % 5 == 0 else "quick", first)
            return "ok" if value == first + SEGMENTS else "wrong"
        except InferenceServerException as error:
            return str(error.status())

    with daemon(workload(bundles, qos_ms=(1000, 3000)), journal) as running:
        with ThreadPoolExecutor(8) as pool:
            answers = [pool.submit(outcome, i) for i in range(40)]
            for _ in range(2):
                time.sleep(0.3)
                for lane in lanes(running):
                    with contextlib.suppress(psutil.NoSuchProcess):
                        os.kill(lane.pid, signal.SIGKILL)
            outcomes = [answer.result() for answer in answers]
        assert ask(running.url, "quick", 1) == 1 + SEGMENTS
    assert set(outcomes) <= {"ok", "503"}
    assert outcomes.count("ok") > 10
    assert replay(journal.read_bytes().splitlines()).agreed


def test_a_full_queue_is_429_and_a_passed_timeout_503(bundles: Path, tmp_path: Path) -> None:
    def outcome(job: tuple[int, int | None]) -> str:
        try:
            ask(running.url, "slow", job[0], timeout=job[1])
            return "ok"
        except InferenceServerException as error:
            return str(error.status())

    with daemon(workload(bundles, extra="queue_max = 4\narenas = 2"), tmp_path / "j") as running:
        with ThreadPoolExecutor(12) as pool:
            outcomes = list(pool.map(outcome, [(i, None) for i in range(12)]))
        assert set(outcomes) == {"ok", "429"}
        with ThreadPoolExecutor(3) as pool:
            outcomes = list(pool.map(outcome, [(i, 30_000) for i in range(3)]))
        assert "503" in outcomes


def test_a_bad_workload_is_a_user_error(bundles: Path, tmp_path: Path) -> None:
    missing = parse_workload('[[tenant]]\nname = "a"\nbundle = "none"\nqos_ms = 5')
    with pytest.raises(UserError, match="not a bundle"), daemon(missing, tmp_path / "j"):
        pass


def test_a_model_that_cannot_be_loaded_ends_the_daemon(bundles: Path, tmp_path: Path) -> None:
    bundle = fake_bundle(tmp_path, "bad", SEGMENTS, 666)
    bad = parse_workload(f'[[tenant]]\nname = "a"\nbundle = "{bundle}"\nqos_ms = 5')
    with pytest.raises(UserError, match="never loads"), daemon(bad, tmp_path / "j"):
        pass


def test_a_daemon_that_is_killed_takes_its_lanes_along(bundles: Path, tmp_path: Path) -> None:
    with daemon(workload(bundles), tmp_path / "j") as running:
        children = lanes(running)
        os.kill(running.pid, signal.SIGKILL)
        assert psutil.wait_procs(children, timeout=30)[1] == []
