"""What can be driven: each target starts a server for a workload and says where it listens.

All of them serve the Open Inference Protocol over HTTP on the loopback interface, from processes
that are kept on the workload's cores; the load generator runs wherever the system puts it, and what
it takes is reported beside the figures.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from tenantdl.bench.peers import on_cores
from tenantdl.bench.serving import mlserver, rayserve, triton
from tenantdl.bench.serving.environments import environment
from tenantdl.bench.serving.models import Model, onnx_file, served_models
from tenantdl.bench.serving.peer_server import PeerOutcome, PeerTask
from tenantdl.bench.serving.runtimes import RUNTIMES, OnnxModel
from tenantdl.daemon import running_daemon
from tenantdl.errors import ExecutionError, UserError
from tenantdl.exec.lane_pool import BACKEND
from tenantdl.ids import CoreId
from tenantdl.lifetime import end_with_parent
from tenantdl.load.workload import Workload
from tenantdl.machine import usable_cores

# Requests that a server around a runtime works on at once: time slices let short ones pass long
# ones, which measured better than one for each core.
_IN_FLIGHT = 8
_START_S, _STOP_S = 300.0, 10.0


@dataclass(frozen=True, slots=True)
class Setup:
    """What a target serves. `parts`: the cores of each model, found by search (static targets).
    `backend`: of our own lanes. `journal`: whether our scheduler writes one."""

    workload: Workload
    folder: Path
    parts: Mapping[str, Sequence[CoreId]] = field(default_factory=dict)
    backend: str = BACKEND
    journal: bool = True

    @property
    def cores(self) -> tuple[CoreId, ...]:
        """The cores that are served on."""
        return tuple(CoreId(c) for c in self.workload.machine.cores) or usable_cores()

    def models(self) -> dict[str, Model]:
        """What is served, by name."""
        return served_models(self.workload)


@dataclass(frozen=True, slots=True)
class Served:
    """A running target. `pid`: the process above all of its others. `journal`: of our scheduler,
    complete once it has stopped. `scalars_as`: the shape that it takes scalar inputs in. `binary`:
    whether tensors come as bytes, or else as JSON. `grpc`: host:port, None without gRPC."""

    url: str
    pid: int
    journal: Path | None = None
    scalars_as: tuple[int, ...] = ()
    binary: bool = True
    grpc: str | None = None


Open = Callable[[Setup], AbstractContextManager[Served]]


def _daemon(*launch_cores: int) -> Open:
    """Every launch on one of `launch_cores` numbers of cores; without any, as the workload says."""

    @contextlib.contextmanager
    def opened(setup: Setup) -> Iterator[Served]:
        workload = setup.workload
        journal = setup.folder / "journal.jsonl" if setup.journal else None
        if launch_cores:
            scheduler = msgspec.structs.replace(workload.scheduler, cores=launch_cores)
            workload = msgspec.structs.replace(workload, scheduler=scheduler)
        with contextlib.ExitStack() as stack:
            with on_cores(setup.cores):
                running = running_daemon(workload, journal=journal, backend=setup.backend)
                daemon = stack.enter_context(running)
            yield Served(daemon.url, daemon.pid, journal, grpc=daemon.grpc)

    return opened


def _runtime(name: str) -> Open:
    @contextlib.contextmanager
    def opened(setup: Setup) -> Iterator[Served]:
        models = {
            model.name: OnnxModel(
                os.fspath(onnx_file(model)),
                {tensor.name: tensor.shape for tensor in model.plan.inputs},
            )
            for model in setup.models().values()
        }
        task = PeerTask(name, models, tuple(setup.cores), _IN_FLIGHT)
        file, outcome = setup.folder / "task.json", setup.folder / "outcome.json"
        file.write_bytes(msgspec.json.encode(task))
        outcome.unlink(missing_ok=True)
        command = [sys.executable, "-m", "tenantdl.bench.serving.peer_server", str(file)]
        with _stopped(
            subprocess.Popen(command, start_new_session=True, preexec_fn=end_with_parent)
        ) as process:

            def url() -> str | None:
                if not outcome.exists():
                    return None
                said = msgspec.json.decode(outcome.read_bytes(), type=PeerOutcome)
                if said.error:
                    raise UserError(said.error)
                return said.url

            yield Served(_wait(name, process, url), process.pid)

    return opened


def _triton(static: bool) -> Open:
    def started(setup: Setup, ports: Sequence[int]) -> subprocess.Popen[bytes]:
        repository = setup.folder / "repository"
        parts = setup.parts if static else {}
        triton.write_repository(setup.models(), parts, len(setup.cores), repository)
        return triton.start(repository, *ports)

    return _peer("triton", started, scalars_as=triton.SCALARS_AS)


def _mlserver(setup: Setup, ports: Sequence[int]) -> subprocess.Popen[bytes]:
    folder = setup.folder / "models"
    mlserver.write_folder(setup.models(), len(setup.cores), folder, [*ports, *free_ports(1)])
    return mlserver.start(folder)


def _rayserve(setup: Setup, ports: Sequence[int]) -> subprocess.Popen[bytes]:
    task = setup.folder / "ray.json"
    rayserve.write_task(setup.models(), len(setup.cores), task, ports[0])
    return rayserve.start(task)


def _peer(
    name: str,
    started: Callable[[Setup, Sequence[int]], subprocess.Popen[bytes]],
    *,
    scalars_as: tuple[int, ...] = (),
    binary: bool = True,
    grpc: bool = True,
) -> Open:
    """A server with an environment of its own, that logs to NAME.log: `started` on ports for HTTP
    and gRPC."""

    @contextlib.contextmanager
    def opened(setup: Setup) -> Iterator[Served]:
        http_port, grpc_port = free_ports(2)
        with on_cores(setup.cores):
            process = started(setup, [http_port, grpc_port])
        with _stopped(process):
            url = f"http://127.0.0.1:{http_port}"
            try:
                ready = _wait(name, process, lambda: url)
            except ExecutionError as error:
                log = (setup.folder / f"{name}.log").read_text(errors="replace")
                last = " / ".join(log.splitlines()[-3:])
                raise ExecutionError(f"{error}: {last}") from error
            yield Served(
                ready,
                process.pid,
                scalars_as=scalars_as,
                binary=binary,
                grpc=f"127.0.0.1:{grpc_port}" if grpc else None,
            )

    return opened


TARGETS: dict[str, Open] = {
    "daemon": _daemon(),
    "daemon-1": _daemon(1),
    "daemon-2": _daemon(2),
    **{name: _runtime(name) for name in RUNTIMES},
    "triton": _triton(static=False),
    "triton-static": _triton(static=True),
    "mlserver": _peer("mlserver", _mlserver, scalars_as=(1,), binary=False),
    "rayserve": _peer("rayserve", _rayserve, grpc=False),
}
# Targets that are simulated, and the ones that are measured to find a partition for others.
SIMULATED = "sim"
PARTITIONED = {"triton-static": "triton"}
# Servers in environments of their own, by what their targets' names begin with.
_ENVIRONMENTS = ("triton", "mlserver", "rayserve")


def free_ports(count: int) -> list[int]:
    """Ports of the loopback interface that nobody listens to."""
    with contextlib.ExitStack() as stack:
        sockets = [
            stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)
        ]
        return [each.getsockname()[1] for each in sockets]


def check_target(name: str) -> None:
    """Raises UserError, in one line that says what to do, for a target that cannot be driven."""
    if name not in TARGETS and name != SIMULATED:
        known = ", ".join([SIMULATED, *TARGETS])
        raise UserError(f"target {name!r} is unknown; known: {known}")
    for peer in _ENVIRONMENTS:
        if name.startswith(peer):
            environment(peer)


def _wait(name: str, process: subprocess.Popen[bytes], address: Callable[[], str | None]) -> str:
    """Until the server is ready; its URL."""
    until = time.monotonic() + _START_S
    while time.monotonic() < until:
        url = address()
        if process.poll() is not None:
            raise ExecutionError(f"{name} ended at its start, exit code {process.returncode}")
        if url and _is_ready(url):
            return url
        time.sleep(0.05)
    raise ExecutionError(f"{name} was not ready in time")


def _is_ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/v2/health/ready", timeout=5) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False


@contextlib.contextmanager
def _stopped(process: subprocess.Popen[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """`process`, which leads a session of its own, asked to end and then ended with all of it."""
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_STOP_S)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
