"""The doors of a daemon: HTTP through uvicorn, gRPC beside it on the same event loop."""

from __future__ import annotations

import contextlib
import ipaddress
import resource
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import uvicorn
from starlette.applications import Starlette

from tenantdl.daemon.engine import Engine
from tenantdl.daemon.observe import routes as observe
from tenantdl.daemon.protocol.access import Access
from tenantdl.daemon.protocol.control import Control
from tenantdl.daemon.protocol.http import for_operators, make_app
from tenantdl.daemon.protocol.http_connection import connection_class
from tenantdl.daemon.protocol.inference import Gate
from tenantdl.daemon.repository import Repository
from tenantdl.errors import UserError
from tenantdl.load.workload import ServerSection, Workload

if TYPE_CHECKING:
    from tenantdl.daemon.protocol.grpc_server import GrpcServer

_MESSAGE_BYTES_LEAST = 4 * 1024**2
# How long an idle connection is kept: rare clients should not find theirs closed.
_IDLE_S = 75


class Listening(NamedTuple):
    """Where a daemon can be reached. `grpc`: host:port, None without gRPC."""

    url: str
    grpc: str | None


def check_binding(server: ServerSection) -> None:
    """Raises UserError for an address beyond this machine without TLS or `insecure`."""
    try:
        inside = ipaddress.ip_address(server.host).is_loopback
    except ValueError:
        inside = server.host == "localhost"
    if not (inside or server.tls_cert or server.insecure):
        raise UserError(
            f"server.host: {server.host} can be reached from other machines: give tls_cert and "
            f"tls_key, or say insecure = true"
        )


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises UserError."""
    _raise_descriptor_limit()
    try:
        return socket.create_server(
            (host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=1024
        )
    except OSError as error:
        raise UserError(f"cannot listen on {host}:{port}: {error.strerror}") from error


def _raise_descriptor_limit() -> None:
    """As many descriptors as the system lets us have: a connection takes one, models and lanes a
    few. What is beyond even that waits to be accepted."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def make_server(
    workload: Workload,
    engine: Engine,
    listener: socket.socket,
    on_listening: Callable[[Listening], None],
    on_stopping: Callable[[], None],
) -> uvicorn.Server:
    """The server for `engine`, to be run on `listener`. It starts and closes the engine; the models
    of the repository are loaded then. Raises UserError for TLS files that cannot be used."""
    section = workload.server
    repository = Repository(
        engine.hosting, Path(section.repository) if section.repository else None
    )
    catalogue = engine.catalogue
    access = Access(catalogue.tenants, section.operator_sha256, catalogue.applications)
    gate = Gate(engine, access, round(section.body_mb_max * 1024**2))
    control = Control(gate, repository)
    scheme = "https" if section.tls_cert else "http"
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        engine.start()
        grpc_server = None
        try:
            address = None
            if section.grpc_port is not None:
                grpc_server, grpc_port = await _start_grpc(section, gate, control)
                address = f"{shown}:{grpc_port}"
            loading = repository.start()
            on_listening(Listening(f"{scheme}://{shown}:{port}", address))
            yield
            loading.cancel()
        finally:
            on_stopping()
            if grpc_server is not None:
                await grpc_server.stop(grace_s=0.5)
            engine.close()

    watching = [*for_operators(gate, observe.routes(engine)), *observe.pages()]
    return _uvicorn(section, gate, make_app(gate, control, watching, lifespan))


def _uvicorn(section: ServerSection, gate: Gate, app: Starlette) -> uvicorn.Server:
    config = uvicorn.Config(
        app,
        http=connection_class(gate, section.request_s_max),
        lifespan="on",
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=section.connections_max,
        timeout_keep_alive=_IDLE_S,
        timeout_graceful_shutdown=5,
        ssl_certfile=section.tls_cert,
        ssl_keyfile=section.tls_key,
    )
    try:
        config.load()
    except OSError as error:
        raise UserError(f"server.tls_cert, tls_key: cannot be used: {error}") from error
    return uvicorn.Server(config)


async def _start_grpc(
    section: ServerSection, gate: Gate, control: Control
) -> tuple[GrpcServer, int]:
    # Only who wants gRPC pays for loading it.
    from tenantdl.daemon.protocol.grpc_server import GrpcServer, tls_context
    from tenantdl.daemon.protocol.http2 import Limits

    tls = None
    if section.tls_cert and section.tls_key:
        tls = tls_context(Path(section.tls_cert), Path(section.tls_key))
    bytes_max = max(_MESSAGE_BYTES_LEAST, round(section.body_mb_max * 1024**2))
    limits = Limits(section.connections_max, section.request_s_max)
    server = GrpcServer(gate, control, bytes_max, limits)
    return server, await server.start(section.host, section.grpc_port or 0, tls)
