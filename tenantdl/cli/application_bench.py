"""`tenantdl bench application`: OCR served as one call, beside other ways to get it."""

from __future__ import annotations

from typing import Annotated

import typer

from tenantdl.cli import parse, serve
from tenantdl.cli.options import JsonFile


def register(app: typer.Typer) -> None:
    """Add the command of this module to `app`."""
    app.command(name="application")(application_command)


def application_command(
    workload: serve.Workload,
    application: Annotated[str, typer.Option(help="Which of the workload's.")] = "ocr",
    system: Annotated[
        str, typer.Option(metavar="NAME,…", help="application, one-by-one, rapidocr; '' for all.")
    ] = "",
    pages: Annotated[int, typer.Option(min=1, max=1000, help="Pages a turn.")] = 6,
    rounds: Annotated[int, typer.Option(min=1, max=1000, help="Turns of each system.")] = 3,
    concurrency: Annotated[int, typer.Option(min=1, max=64, help="Clients in a loop.")] = 2,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the pages.")] = 1,
    json: JsonFile = None,
) -> None:
    """Read rendered pages through the application, its models one by one, and rapidocr."""
    from tenantdl.bench import application as bench
    from tenantdl.bench.envelope import write_results
    from tenantdl.cli import render
    from tenantdl.cli.bench import command_line
    from tenantdl.load.workload import load_workload

    systems = parse.words(system, "--system", known=bench.SYSTEMS) or bench.SYSTEMS
    served = load_workload(workload)
    with render.progress("bench application") as progress:
        rows = bench.run(
            served,
            application,
            systems=systems,
            pages=pages,
            rounds=rounds,
            concurrency=concurrency,
            seed=seed,
            progress=progress,
        )
    if json is not None:
        write_results(json, rows, command=command_line(), seed=seed)
    columns = ["System", ">pages", ">lines right", ">pages/s", ">p50 ms", ">p95 ms"]
    render.table(
        f"{application}, {concurrency} clients in a loop (measured)",
        columns,
        [
            [
                row["system"],
                str(row["pages"]),
                f"{row['lines_right']} of {row['lines']}",
                f"{row['throughput_rps']:.2f}",
                f"{row['p50_ms']:.0f}",
                f"{row['p95_ms']:.0f}",
            ]
            for row in rows
        ],
    )
    for row in rows:
        for line, read in row["wrong"]:
            render.line(f"{row['system']} read {read!r} for {line!r}")
