"""`tenantdl profile`: measure this machine for the simulator."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tenantdl.errors import UserError


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command(name="profile")(profile_command)


def profile_command(
    machine: Annotated[bool, typer.Option("--machine", help="Measure this machine.")] = False,
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="FILE.toml", help="Where to write it.")
    ] = Path("out/this-machine.toml"),
    rounds: Annotated[int, typer.Option(min=5, max=10_000, help="Launches that are timed.")] = 300,
) -> None:
    """Measure what lanes cost here; the file is for `tenantdl simulate --machine FILE`."""
    if not machine:
        raise UserError("nothing to measure: give --machine")

    from tenantdl.bench import machine as bench
    from tenantdl.bench.groups import measure_groups
    from tenantdl.cli import render

    with render.working("measuring this machine"):
        groups = measure_groups(rounds)
        measured = bench.measure(rounds, groups)
    bench.write(measured, output)
    columns = ["Cores", ">GB/s", ">hand-over µs", ">block end µs", ">a request µs", ">a MB µs"]
    row = [measured.cores, measured.bandwidth_gbs, measured.handover_us, measured.boundary_us]
    row += [measured.request_us, measured.request_mb_us]
    render.table("This machine, measured", columns, [row])
    columns = ["Cores of a group", ">a loop more µs", ">waking helpers µs"]
    rows = [[g.cores, f"{g.loop_us:.1f}", f"{g.wake_us:.1f}"] for g in groups]
    render.table("", columns, rows)
    render.line(f"Machine: {output}")
