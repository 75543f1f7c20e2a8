"""Run a daemon: in this process (`serve`), or in a subprocess for tests and the bench."""

from __future__ import annotations

import contextlib
import gc
import os
import resource
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import uvicorn
from starlette.applications import Starlette

from tenantdl.daemon.catalogue import open_catalogue
from tenantdl.daemon.engine import Engine
from tenantdl.daemon.following import Following
from tenantdl.daemon.http import make_app
from tenantdl.daemon.observe.logs import set_up as set_up_logs
from tenantdl.daemon.stages import with_stages
from tenantdl.errors import ExecutionError, UserError
from tenantdl.exec.lane_pool import BACKEND
from tenantdl.load.workload import Workload

_START_S = 300.0
_STOP_S = 15.0


def serve(
    workload: Workload,
    *,
    journal: str | os.PathLike[str] | None = None,
    backend: str = BACKEND,
    on_listening: Callable[[str], None] | None = None,
) -> None:
    """Serve `workload` until SIGINT or SIGTERM.

    `journal`: a file for every decision of the scheduler. `on_listening` is called with the URL
    once connections are accepted; models may still be loading then (/v2/health/ready tells).
    Raises UserError for bad bundles, cores or addresses; ExecutionError if lanes do not start, and
    InvariantError, when service cannot go on.
    """
    set_up_logs(workload.observe)
    staged = with_stages(workload)
    catalogue = open_catalogue(staged)
    with _listen(workload.server.host, workload.server.port) as listener:
        engine = Engine(
            staged,
            catalogue,
            journal=Path(journal) if journal else None,
            backend=backend,
            on_failure=lambda: setattr(server, "should_exit", True),
        )
        url = "http://{}:{}".format(*listener.getsockname()[:2])

        @contextlib.asynccontextmanager
        async def lifespan(app: Starlette) -> AsyncIterator[None]:
            engine.start()
            following = Following(workload, workload.plan, engine) if workload.plan else None
            if following:
                following.start()
            # What was loaded so far stays; the collector need not walk it again and again.
            gc.freeze()
            if on_listening:
                on_listening(url)
            try:
                yield
            finally:
                if following:
                    following.close()
                engine.close()

        config = uvicorn.Config(
            make_app(engine, round(workload.server.body_mb_max * 1024**2), lifespan),
            lifespan="on",
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=workload.server.connections_max,
            timeout_graceful_shutdown=5,
        )
        server = uvicorn.Server(config)
        with contextlib.suppress(KeyboardInterrupt):
            server.run(sockets=[listener])
        if engine.failure:
            raise engine.failure


@dataclass(frozen=True, slots=True)
class RunningDaemon:
    """A daemon in a subprocess. `journal`: its scheduler's, complete once it has stopped."""

    url: str
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
    """A daemon on a free port of the loopback interface, ready to serve; stopped at the end.

    Raises UserError for a bad workload, ExecutionError if it does not come up.
    """
    server = msgspec.structs.replace(workload.server, host="127.0.0.1", port=0)
    task = _Task(msgspec.structs.replace(workload, server=server), _text(journal), backend)
    with TemporaryDirectory(prefix="tenantdl-daemon-") as folder:
        file = Path(folder) / "task.json"
        file.write_bytes(msgspec.json.encode(task))
        process = subprocess.Popen([sys.executable, "-m", "tenantdl.daemon", str(file)])
        try:
            url = _wait(process, file, time.monotonic() + wait_s)
            yield RunningDaemon(url, process.pid, Path(journal) if journal else None)
        finally:
            _stop(process)


class _Task(msgspec.Struct, frozen=True):
    workload: Workload
    journal: str | None
    backend: str


class _Outcome(msgspec.Struct, frozen=True):
    """What the subprocess has to say: where it listens, or why it cannot serve."""

    url: str = ""
    error: str = ""


def _outcome_file(task: Path) -> Path:
    return task.with_name("outcome.json")


def _wait(process: subprocess.Popen[bytes], task: Path, until: float) -> str:
    """Until the daemon is ready; its URL."""
    outcome = _outcome_file(task)
    url = ""
    while time.monotonic() < until:
        if outcome.exists():
            said = msgspec.json.decode(outcome.read_bytes(), type=_Outcome)
            if said.error:
                raise UserError(said.error)
            url = said.url
        if process.poll() is not None:
            raise ExecutionError(f"the daemon ended at its start, exit code {process.returncode}")
        if url and _is_ready(url):
            return url
        time.sleep(0.02)
    raise ExecutionError("the daemon was not ready in time")


def _is_ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/v2/health/ready", timeout=5) as response:
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


def _raise_descriptor_limit() -> None:
    """As many descriptors as the system lets us have: a connection takes one, models and lanes a
    few. What is beyond even that waits to be accepted."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _listen(host: str, port: int) -> socket.socket:
    _raise_descriptor_limit()
    try:
        return socket.create_server((host, port), backlog=1024)
    except OSError as error:
        raise UserError(f"cannot listen on {host}:{port}: {error.strerror}") from error


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
            on_listening=lambda url: _write(_Outcome(url=url), outcome),
        )
    except UserError as error:
        _write(_Outcome(error=str(error)), outcome)
