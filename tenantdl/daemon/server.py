"""Run a daemon: in this process (`serve`), or in a subprocess for tests and the bench."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

from tenantdl.daemon.catalogue import open_catalogue
from tenantdl.daemon.engine import Engine
from tenantdl.daemon.following import Following
from tenantdl.daemon.front import Listening, check_binding, listen, make_server
from tenantdl.daemon.observe.logs import set_up as set_up_logs
from tenantdl.daemon.stages import with_stages
from tenantdl.errors import ExecutionError, UserError
from tenantdl.exec.lane_pool import BACKEND
from tenantdl.lifetime import end_with_parent
from tenantdl.load.workload import Workload

_START_S = 300.0
_STOP_S = 15.0


def serve(
    workload: Workload,
    *,
    journal: str | os.PathLike[str] | None = None,
    backend: str = BACKEND,
    on_listening: Callable[[Listening], None] | None = None,
) -> None:
    """Serve `workload` until SIGINT or SIGTERM.

    `journal`: a file for every decision of the scheduler. `on_listening` is told where,
    once connections are accepted; models may still be loading then (/v2/health/ready tells).
    Raises UserError for bad bundles, cores or addresses; ExecutionError if lanes do not start, and
    InvariantError, when service cannot go on.
    """
    set_up_logs(workload.observe)
    check_binding(workload.server)
    staged = with_stages(workload)
    catalogue = open_catalogue(staged)
    with listen(workload.server.host, workload.server.port) as listener:
        engine = Engine(
            staged,
            catalogue,
            journal=Path(journal) if journal else None,
            backend=backend,
            on_failure=lambda: setattr(server, "should_exit", True),
        )

        following = Following(workload, workload.plan, engine) if workload.plan else None

        def started(listening: Listening) -> None:
            if following:
                following.start()
            # What was loaded so far stays; the collector need not walk it again and again.
            gc.freeze()
            if on_listening:
                on_listening(listening)

        def stopping() -> None:
            if following:
                following.close()

        server = make_server(workload, engine, listener, started, stopping)
        with contextlib.suppress(KeyboardInterrupt):
            server.run(sockets=[listener])
        if engine.failure:
            raise engine.failure


@dataclass(frozen=True, slots=True)
class RunningDaemon:
    """A daemon in a subprocess. `grpc`: host:port, None without gRPC. `journal`: its scheduler's,
    complete once it has stopped."""

    url: str
    grpc: str | None
    pid: int
    journal: Path | None


@contextlib.contextmanager
def running_daemon(
    workload: Workload,
    *,
    journal: str | os.PathLike[str] | None = None,
    backend: str = BACKEND,
    wait_s: float = _START_S,
) -> Iterator[RunningDaemon]:
    """A daemon on a free port of the loopback interface, ready to serve; stopped at the end,
    killed if the thread that started it ends before.

    Raises UserError for a bad workload, ExecutionError if it does not come up.
    """
    grpc = workload.server.grpc_port
    server = msgspec.structs.replace(
        workload.server, host="127.0.0.1", port=0, grpc_port=None if grpc is None else 0
    )
    task = _Task(msgspec.structs.replace(workload, server=server), _text(journal), backend)
    with TemporaryDirectory(prefix="tenantdl-daemon-") as folder:
        file = Path(folder) / "task.json"
        file.write_bytes(msgspec.json.encode(task))
        process = subprocess.Popen(
            [sys.executable, "-m", "tenantdl.daemon", str(file)], preexec_fn=end_with_parent
        )
        try:
            listening = _wait(process, file, time.monotonic() + wait_s)
            yield RunningDaemon(*listening, process.pid, Path(journal) if journal else None)
        finally:
            _stop(process)


class _Task(msgspec.Struct, frozen=True):
    workload: Workload
    journal: str | None
    backend: str


class _Outcome(msgspec.Struct, frozen=True):
    """What the subprocess has to say: where it listens, or why it cannot serve."""

    url: str = ""
    grpc: str | None = None
    error: str = ""


def _outcome_file(task: Path) -> Path:
    return task.with_name("outcome.json")


def _wait(process: subprocess.Popen[bytes], task: Path, until: float) -> Listening:
    """Until the daemon is ready; where it listens."""
    outcome = _outcome_file(task)
    listening: Listening | None = None
    while time.monotonic() < until:
        ended = process.poll()  # before its last words are read
        if outcome.exists():
            said = msgspec.json.decode(outcome.read_bytes(), type=_Outcome)
            if said.error:
                raise UserError(said.error)
            listening = Listening(said.url, said.grpc)
        if ended is not None:
            raise ExecutionError(f"the daemon ended at its start, exit code {ended}")
        if listening and _is_ready(listening.url):
            return listening
        time.sleep(0.02)
    raise ExecutionError("the daemon was not ready in time")


def _is_ready(url: str) -> bool:
    try:
        # Whose certificate this is does not matter here: it is our own child.
        trusting = ssl._create_unverified_context() if url.startswith("https") else None
        ready = f"{url}/v2/health/ready"
        with urllib.request.urlopen(ready, timeout=5, context=trusting) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _text(path: str | os.PathLike[str] | None) -> str | None:
    return None if path is None else os.fspath(path)


def _write(outcome: _Outcome, file: Path) -> None:
    aside = file.with_suffix(".part")
    aside.write_bytes(msgspec.json.encode(outcome))
    aside.rename(file)


def run_task(file: Path) -> None:
    """In the subprocess: serve the task in `file`, and leave word beside it."""
    task = msgspec.json.decode(file.read_bytes(), type=_Task)
    outcome = _outcome_file(file)
    try:
        serve(
            task.workload,
            journal=task.journal,
            backend=task.backend,
            on_listening=lambda where: _write(_Outcome(where.url, where.grpc), outcome),
        )
    except UserError as error:
        _write(_Outcome(error=str(error)), outcome)
