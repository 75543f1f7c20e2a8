"""A server around a runtime that has none: the daemon's own web stack and wire format, and behind
it threads that call the runtime, first come first served.

What HTTP costs is the same as for the daemon then. As many requests run at once as `in_flight` says
(more than cores: the system shares them out, which helps short requests past long ones).
Started as `python -m tenantdl.bench.serving.peer_server FILE`, where its task is, as JSON.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tenantdl.bench.serving.exchange import answered, received
from tenantdl.bench.serving.runtimes import Call, OnnxModel, open_models
from tenantdl.documents import write_document
from tenantdl.errors import UserError

CONNECTIONS_MAX = 4096


class PeerTask(msgspec.Struct, frozen=True):
    """`models` by the names they are served under; `cores`: what the process is kept on."""

    runtime: str
    models: dict[str, OnnxModel]
    cores: tuple[int, ...]
    in_flight: int


class PeerOutcome(msgspec.Struct, frozen=True):
    """Where the server listens, or why it cannot serve; written beside the task."""

    url: str = ""
    error: str = ""


class _Front:
    def __init__(self, calls: Mapping[str, Call], in_flight: int) -> None:
        self._calls = calls
        self._threads = ThreadPoolExecutor(in_flight)

    async def infer(self, request: Request) -> Response:
        name = request.path_params["model"]
        call = self._calls.get(name)
        if call is None:
            return Response(status_code=404)
        number, inputs = await received(request)
        loop = asyncio.get_running_loop()
        outputs = await loop.run_in_executor(self._threads, call, inputs)
        return answered(name, number, outputs)

    async def ready(self, request: Request) -> Response:
        return Response()


def serve(task: PeerTask, outcome: Path) -> None:
    """Open the models, leave word in `outcome`, serve until told to stop."""
    os.sched_setaffinity(0, set(task.cores))
    calls = open_models(task.runtime, list(task.models.values()), len(task.cores))
    front = _Front(dict(zip(task.models, calls, strict=True)), task.in_flight)
    app = Starlette(
        routes=[
            Route("/v2/models/{model}/infer", front.infer, methods=["POST"]),
            Route("/v2/health/ready", front.ready),
        ]
    )
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    url = "http://{}:{}".format(*listener.getsockname())
    write_document(outcome, msgspec.json.encode(PeerOutcome(url=url)))
    config = uvicorn.Config(
        app, log_level="warning", access_log=False, lifespan="off", server_header=False
    )
    uvicorn.Server(config).run(sockets=[listener])


def main(argv: Sequence[str]) -> None:
    """Serve the task in the file `argv[0]`; say in `outcome.json` beside it how that went."""
    file = Path(argv[0])
    outcome = file.with_name("outcome.json")
    task = msgspec.json.decode(file.read_bytes(), type=PeerTask)
    try:
        serve(task, outcome)
    except Exception as error:  # their own classes derive from Exception directly
        first = next(iter(str(error).strip().splitlines()), type(error).__name__)
        what = str(error) if isinstance(error, UserError) else f"{task.runtime}: {first}"
        write_document(outcome, msgspec.json.encode(PeerOutcome(error=what)))


if __name__ == "__main__":
    main(sys.argv[1:])
