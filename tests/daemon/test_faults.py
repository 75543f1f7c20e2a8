"""What a daemon survives: hung and killed processes, full disks, too few descriptors, too little
memory, the end of its service under load. Lanes run a fake backend."""

from __future__ import annotations

import ast
import errno
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
import tritonclient.http as triton

import tenantdl
from tenantdl.daemon import running_daemon
from tenantdl.daemon.journal import JournalWriter
from tenantdl.errors import UserError
from tenantdl.exec.lane_memory import Mapping, lay_out
from tenantdl.exec.lane_pool import LanePool
from tenantdl.exec.program_set import ProgramSet
from tenantdl.ids import LaneId, ModelId
from tenantdl.machine import usable_cores
from tenantdl.sched.config import LaneSpec, ModelSpec, SchedulerConfig, one_core_plan
from tenantdl.sched.journal import replay
from tenantdl.sched.messages import Event, LaneLost, LaneReady, Tick
from tenantdl.units import SECOND, Ns
from tests.daemon.test_daemon import SEGMENTS, ask, lanes, workload
from tests.exec.fake_lane_backend import fake_bundle, fake_plan

FAKES = Path(__file__).parents[1] / "exec"
FULL = Path("/dev/full")
PATIENCE_S = 60


@pytest.fixture(autouse=True)
def _fakes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", f"{FAKES}:{FAKES.parents[1]}")


@pytest.fixture
def bundles(tmp_path: Path) -> Path:
    fake_bundle(tmp_path, "quick", SEGMENTS, 200)
    fake_bundle(tmp_path, "slow", SEGMENTS, 10_000)
    return tmp_path


def test_a_daemon_that_is_killed_leaves_no_hung_lane_behind(bundles: Path, tmp_path: Path) -> None:
    """A stopped process never sees its standard input close: the system has to end it."""
    with running_daemon(
        workload(bundles), journal=tmp_path / "j", backend="fake_lane_backend"
    ) as running:
        children = lanes(running)
        for child in children:
            os.kill(child.pid, signal.SIGSTOP)
        os.kill(running.pid, signal.SIGKILL)
        assert psutil.wait_procs(children, timeout=PATIENCE_S)[1] == []
    # Nothing of the dead is in the way of the next.
    with running_daemon(
        workload(bundles), journal=tmp_path / "j", backend="fake_lane_backend"
    ) as running:
        assert ask(running.url, "quick", 1) == 1 + SEGMENTS


def test_a_daemon_ends_with_the_program_that_started_it(bundles: Path, tmp_path: Path) -> None:
    """Also with one that is killed and can stop nothing, as a bench may be."""
    script = """
import sys, time
from pathlib import Path
from tenantdl.daemon import running_daemon
from tests.daemon.test_daemon import workload
with running_daemon(workload(Path(sys.argv[1])), backend="fake_lane_backend") as running:
    print(running.pid, flush=True)
    time.sleep(1000)
"""
    command = [sys.executable, "-c", script, str(bundles)]
    environment = os.environ | {"TMPDIR": str(tmp_path)}  # for what it cannot take away itself
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as bench:
        assert bench.stdout is not None
        daemon = psutil.Process(int(bench.stdout.readline()))
        below = [daemon, *daemon.children(recursive=True)]
        bench.kill()
    assert psutil.wait_procs(below, timeout=PATIENCE_S)[1] == []


def test_what_is_inside_is_answered_when_the_daemon_is_told_to_stop(
    bundles: Path, tmp_path: Path
) -> None:
    journal = tmp_path / "journal.jsonl"
    with running_daemon(
        workload(bundles, qos_ms=(30_000, 30_000)), journal=journal, backend="fake_lane_backend"
    ) as running:
        with ThreadPoolExecutor(4) as pool:
            answers = [pool.submit(ask, running.url, "slow", i) for i in range(4)]
            _until_inside(running.url, 4)
            os.kill(running.pid, signal.SIGTERM)
            assert [answer.result() for answer in answers] == [i + SEGMENTS for i in range(4)]
        psutil.wait_procs([psutil.Process(running.pid)], timeout=PATIENCE_S)
        with pytest.raises(OSError):
            ask(running.url, "slow", 1)
    lines = journal.read_bytes().splitlines()
    assert replay(lines).agreed == len(lines) - 1


def _until_inside(url: str, count: int) -> None:
    """Until `count` requests are in the daemon's queues."""
    import urllib.request

    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        text = urllib.request.urlopen(f"{url}/metrics").read().decode()
        lines = [line for line in text.splitlines() if line.startswith("tenantdl_queue_length{")]
        if sum(float(line.rpartition(" ")[2]) for line in lines) >= count:
            return
        time.sleep(0.005)
    raise AssertionError("they never got in")


@pytest.mark.skipif(not FULL.exists(), reason="no /dev/full here")
def test_a_full_disk_ends_the_journal_not_the_service(bundles: Path) -> None:
    with running_daemon(workload(bundles), journal=FULL, backend="fake_lane_backend") as running:
        client = triton.InferenceServerClient(running.url.removeprefix("http://"))
        until = time.monotonic() + 1.5  # some flushes
        while time.monotonic() < until:
            assert ask(running.url, "quick", 1) == 1 + SEGMENTS
        assert client.is_server_ready()
        client.close()


def test_a_journal_cut_short_by_a_full_disk_still_replays(tmp_path: Path) -> None:
    config = SchedulerConfig(
        policy="edf",
        lanes=(LaneSpec(LaneId(0), (usable_cores()[0],)),),
        models=(ModelSpec(ModelId("m"), (one_core_plan((1000,)),)),),
        tenants=(),
    )
    path = tmp_path / "j"
    journal = JournalWriter(path, config, 10**6)
    journal.write(Ns(1), Tick(), [])
    journal.flush()
    whole = path.read_bytes()

    class Full:
        """A disk with room for seven bytes more."""

        def __init__(self, file: object) -> None:
            self._file = file

        def write(self, piece: bytes) -> int:
            return int(self._file.write(piece[:7]))  # type: ignore[attr-defined]

        def __getattr__(self, name: str) -> object:
            return getattr(self._file, name)

    journal._file = Full(journal._file)  # type: ignore[assignment]
    for at in range(2, 9):
        journal.write(Ns(at), Tick(), [])
    journal.close()
    assert path.read_bytes() == whole
    assert replay(whole.splitlines()).agreed == 1


@pytest.fixture
def pool() -> Iterator[LanePool]:
    made = LanePool(
        [LaneSpec(LaneId(0), (usable_cores()[0],))],
        hang=Ns(60 * SECOND),
        backend="fake_lane_backend",
    )
    made.attach(lay_out("fake:6:0", [fake_plan(6, 1000)], slots=4, arenas=2))
    yield made
    made.close()


def _events_until(pool: LanePool, kind: type[Event]) -> list[Event]:
    events: list[Event] = []
    until = time.monotonic() + PATIENCE_S
    while not any(isinstance(event, kind) for event in events):
        assert time.monotonic() < until, events
        select.select([pool], [], [], 0.02)
        now = Ns(time.monotonic_ns())
        events += pool.poll(now)
        pool.watch(now)
    return events


def test_a_lane_that_cannot_be_started_is_started_later(
    pool: LanePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool.start(Ns(time.monotonic_ns()))
    _events_until(pool, LaneReady)
    before = len(os.listdir("/proc/self/fd"))
    refused = 0
    create = Mapping.create.__func__  # type: ignore[attr-defined]

    def fail_twice(cls: type[Mapping], name: str, nbytes: int) -> object:
        nonlocal refused
        refused += 1
        if refused <= 2:
            raise OSError(errno.EMFILE, "Too many open files")
        return create(cls, name, nbytes)

    monkeypatch.setattr(Mapping, "create", classmethod(fail_twice))
    os.kill(pool.pids()[LaneId(0)], signal.SIGKILL)
    _events_until(pool, LaneLost)
    _events_until(pool, LaneReady)
    assert refused == 3
    assert len(os.listdir("/proc/self/fd")) == before


def test_too_little_shared_memory_is_a_user_error(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Mapping.create.__func__  # type: ignore[attr-defined]

    def bounded(cls: type[Mapping], name: str, nbytes: int) -> object:
        if nbytes > 10**6:
            raise OSError(errno.ENOMEM, "Cannot allocate memory")
        return real(cls, name, nbytes)

    monkeypatch.setattr(Mapping, "create", classmethod(bounded))
    before = len(os.listdir("/proc/self/fd"))
    layout = lay_out("a.bundle", [fake_plan(2, 1000)], slots=4, arenas=2)
    with pytest.raises(UserError, match=r"a.bundle: 4 MiB of shared memory .*\(Cannot allocate"):
        ProgramSet(0, layout)
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_hard_limit_of_descriptors_is_made_use_of() -> None:
    code = (
        "import resource; from tenantdl.daemon.front import _raise_descriptor_limit as up;"
        "most = resource.getrlimit(resource.RLIMIT_NOFILE)[1];"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (64, most)); up();"
        "assert resource.getrlimit(resource.RLIMIT_NOFILE) == (most, most)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_no_deadline_hangs_on_the_wall_clock() -> None:
    """The wall clock may jump: what decides and measures uses the monotonic one."""
    root = Path(tenantdl.__file__).parent
    for room in ("sched", "exec", "load"):
        for file in (root / room).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text())):
                if (
                    isinstance(node, ast.Attribute)
                    and isinstance(node.value, ast.Name)
                    and node.value.id == "time"
                ):
                    wall = ("time", "time_ns", "clock_gettime", "localtime", "gmtime")
                    assert node.attr not in wall, f"{file}:{node.lineno}"
