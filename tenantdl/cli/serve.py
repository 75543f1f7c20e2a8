"""`tenantdl serve`: the daemon for one workload file, until it is interrupted."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

Workload = Annotated[
    Path, typer.Argument(metavar="WORKLOAD.toml", help="Who is served, how fast, on which cores.")
]
Journal = Annotated[
    Path | None,
    typer.Option("--journal", metavar="FILE", help="Write every decision of the scheduler."),
]


def register(app: typer.Typer) -> None:
    """Add the command of this module to `app`."""
    app.command(name="serve")(serve_command)


def serve_command(
    workload: Workload,
    port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="Listen here instead (0: any free port)."),
    ] = None,
    journal: Journal = None,
    supervise: Annotated[
        bool, typer.Option("--supervise", help="Start it again if it crashes or hangs.")
    ] = False,
) -> None:
    """Serve a workload's tenants over HTTP (Open Inference Protocol) until interrupted."""
    import msgspec

    from tenantdl import daemon
    from tenantdl.cli import render
    from tenantdl.load.workload import load_workload

    served = load_workload(workload)
    if port is not None:
        server = msgspec.structs.replace(served.server, port=port)
        served = msgspec.structs.replace(served, server=server)
    if supervise:
        from tenantdl.daemon.supervisor import Supervisor

        command = [sys.executable, "-m", "tenantdl", "serve", str(workload)]
        command += ["--port", str(served.server.port)]
        command += ["--journal", str(journal)] if journal else []
        at = f"{served.server.host}:{served.server.port}"
        url = f"http://{at}/v2/health/live" if served.server.port else None
        raise typer.Exit(Supervisor(command, url).run())
    names = ", ".join(tenant.name for tenant in served.tenant)
    daemon.serve(
        served,
        journal=journal,
        on_listening=lambda url: render.note(f"Serving {names} on {url} (Ctrl-C stops)"),
    )
