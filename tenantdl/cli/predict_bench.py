"""`tenantdl bench interference`: slowdowns, predicted and measured."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command(name="interference")(interference_command)


def interference_command(
    machine: Annotated[
        str, typer.Option(metavar="NAME,…", help="Declared machines, simulated; '' for none.")
    ] = "64-core",
    encounters: Annotated[
        int, typer.Option(min=20, max=100_000, help="Of a simulated campaign.")
    ] = 1200,
    seed: Annotated[int, typer.Option(min=0, help="Of the campaign and its splits.")] = 1,
    json: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write the results.")
    ] = None,
) -> None:
    """How well slowdowns are predicted, and what wrong choices of variants cost."""
    from tenantdl.bench import interference
    from tenantdl.bench.envelope import write_results
    from tenantdl.cli import render
    from tenantdl.cli.bench import command_line

    names = [name.strip() for name in machine.split(",") if name.strip()]
    rows = [row for name in names for row in interference.simulated(name, encounters, seed)]
    if json is not None:
        write_results(json, rows, command=command_line(), seed=seed)
    columns = ["Machine", "Split", "Predictor", ">MAPE %", ">R²", ">p95 error %", ">regret %"]
    table = [
        [row["machine"], row["split"], row["predictor"]]
        + [
            "–" if row[k] is None else f"{row[k]:.2f}"
            for k in ("mape", "r2", "p95_error", "regret")
        ]
        for row in rows
    ]
    render.table("Predicted slowdowns", columns, table)
