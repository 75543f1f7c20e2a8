"""`tenantdl bench chaos` and `soak`: what a daemon survives under load, with a verdict."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from tenantdl.cli import serve
from tenantdl.cli.options import JsonFile

if TYPE_CHECKING:
    from tenantdl.bench.serving.checks import Check


def register(app: typer.Typer) -> None:
    """Add the commands of this module to `app`."""
    app.command(name="chaos")(chaos_command)
    app.command(name="soak")(soak_command)


def chaos_command(
    workload: serve.Workload,
    kills: Annotated[int, typer.Option(min=0, max=100_000, help="Lanes to kill.")] = 100,
    hangs: Annotated[int, typer.Option(min=0, max=100_000, help="Lanes to hang.")] = 20,
    duration: Annotated[float, typer.Option(min=1, max=86400, help="Seconds of load.")] = 240,
    rate: Annotated[
        float | None, typer.Option(min=0.001, help="Requests a second, all tenants together.")
    ] = None,
    hang_after: Annotated[
        float, typer.Option(min=0.05, max=60, help="Seconds of silence that mean a lane hangs.")
    ] = 0.5,
    seed: Annotated[int, typer.Option(min=0, help="Seed of arrivals and injuries.")] = 1,
    json: JsonFile = None,
    journal: serve.Journal = None,
) -> None:
    """Kill and hang lanes under load: no request may be lost. Exit code 1 if the verdict is bad."""
    from tenantdl.bench.serving import chaos
    from tenantdl.cli import render
    from tenantdl.cli.bench import command_line
    from tenantdl.load.workload import load_workload

    settings = chaos.Settings(kills, hangs, duration, rate, seed, hang_after)
    with render.progress("bench chaos") as progress:
        checks = chaos.run(
            load_workload(workload),
            settings,
            journal=journal,
            json=json,
            command=command_line(),
            progress=progress,
        )
    _verdict(f"{kills} kills and {hangs} hangs in {duration:g} s, measured", checks)


def soak_command(
    workload: serve.Workload,
    duration: Annotated[float, typer.Option(min=1, max=604800, help="Seconds of load.")] = 1200,
    rate: Annotated[
        float | None, typer.Option(min=0.001, help="Requests a second, all tenants together.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the arrivals.")] = 1,
    json: JsonFile = None,
    journal: serve.Journal = None,
) -> None:
    """Serve for long and look for growth and drift. Exit code 1 if the verdict is bad."""
    from tenantdl.bench.serving import soak
    from tenantdl.cli import render
    from tenantdl.cli.bench import command_line
    from tenantdl.load.workload import load_workload

    with render.progress("bench soak") as progress:
        checks = soak.run(
            load_workload(workload),
            soak.Settings(duration, rate, seed),
            journal=journal,
            json=json,
            command=command_line(),
            progress=progress,
        )
    _verdict(f"{duration:g} s under load, measured", checks)


def _verdict(title: str, checks: Sequence[Check]) -> None:
    from tenantdl.cli import render

    rows = [[check.name, "yes" if check.passed else "NO", check.figure] for check in checks]
    render.table(title, ["Shown", "Passed", "Figure"], rows)
    if not all(check.passed for check in checks):
        raise typer.Exit(1)
