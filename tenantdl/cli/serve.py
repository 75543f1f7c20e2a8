"""`tenantdl serve`: the daemon for one workload file, until it is interrupted."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

_WORKLOAD = typer.Argument(metavar="WORKLOAD.toml", help="Who is served, how fast, on which cores.")
Workload = Annotated[Path, _WORKLOAD]
Repository = Annotated[
    Path | None,
    typer.Option(
        "--model-repository",
        metavar="DIR",
        help="A folder of NAME/VERSION bundles, loaded and unloaded while serving.",
    ),
]
HttpPort = Annotated[
    int | None,
    typer.Option(
        "--port", "--http-port", min=0, max=65535, help="Listen here instead (0: any free port)."
    ),
]
GrpcPort = Annotated[
    int | None,
    typer.Option(min=0, max=65535, help="Serve gRPC here too (0: any free port)."),
]
Host = Annotated[
    str | None, typer.Option(help="Listen on this address instead of the loopback one.")
]
Insecure = Annotated[
    bool, typer.Option("--insecure", help="Listen beyond this machine without TLS.")
]
Journal = Annotated[
    Path | None,
    typer.Option("--journal", metavar="FILE", help="Write every decision of the scheduler."),
]


def register(app: typer.Typer) -> None:
    """Add the commands of this module to `app`."""
    app.command(name="serve")(serve_command)
    app.command(name="token")(token_command)


def serve_command(
    workload: Annotated[Path | None, _WORKLOAD] = None,
    model_repository: Repository = None,
    port: HttpPort = None,
    grpc_port: GrpcPort = None,
    host: Host = None,
    insecure: Insecure = False,
    journal: Journal = None,
    supervise: Annotated[
        bool, typer.Option("--supervise", help="Start it again if it crashes or hangs.")
    ] = False,
) -> None:
    """Serve models to tenants over HTTP and gRPC (Open Inference Protocol) until interrupted.

    A workload file says who may call what, how fast; a repository alone serves one tenant.
    """
    from tenantdl import daemon
    from tenantdl.cli import render
    from tenantdl.load.workload import load_workload, serving

    given = {
        "repository": str(model_repository.resolve()) if model_repository else None,
        "port": port,
        "grpc_port": grpc_port,
        "host": host,
        "insecure": insecure or None,
    }
    served = serving(load_workload(workload, partial=True) if workload else None, given)
    if supervise:
        from tenantdl.daemon.supervisor import Supervisor

        command = [sys.executable, "-m", "tenantdl", "serve"]
        command += [str(workload)] if workload else []
        command += ["--model-repository", str(model_repository)] if model_repository else []
        command += ["--port", str(served.server.port), *(["--host", host] if host else [])]
        command += ["--grpc-port", str(grpc_port)] if grpc_port is not None else []
        command += ["--insecure"] if insecure else []
        command += ["--journal", str(journal)] if journal else []
        scheme = "https" if served.server.tls_cert else "http"
        at = f"{scheme}://{served.server.host}:{served.server.port}"
        url = f"{at}/v2/health/live" if served.server.port else None
        raise typer.Exit(Supervisor(command, url).run())
    tenants = [tenant.name for tenant in served.tenant]
    names = ", ".join([*tenants, *(each.name for each in served.application)])
    daemon.serve(
        served,
        journal=journal,
        on_listening=lambda where: render.note(
            f"Serving {names} on {where.url}"
            + (f" and gRPC on {where.grpc}" if where.grpc else "")
            + " (Ctrl-C stops)"
        ),
    )


def token_command() -> None:
    """Make a token for a tenant or an operator, and the digest that goes into the workload file."""
    import hashlib
    import secrets

    from tenantdl.cli import render

    token = secrets.token_urlsafe(32)
    render.line(f"token         {token}")
    render.line(f"token_sha256  {hashlib.sha256(token.encode()).hexdigest()}")
