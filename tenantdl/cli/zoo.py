"""`tenantdl zoo`: the models that can be had without a download."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from tenantdl.cli.options import Json

app = typer.Typer(no_args_is_help=True, help="Models of the papers and real ones from packages.")

Name = Annotated[str, typer.Argument(metavar="NAME", help="A name from `tenantdl zoo list`.")]


@app.command(name="list")
def list_command(json: Json = None) -> None:
    """List all models."""
    from tenantdl import zoo
    from tenantdl.cli import render

    if json:
        render.results(json, [asdict(entry) for entry in zoo.entries()])
        return
    rows = [
        (
            entry.name,
            entry.kind,
            entry.task,
            ", ".join(f"{port.name} {render.shape(port.shape)}" for port in entry.inputs),
            f"{entry.parameters / 1e6:.1f}",
            f"{entry.gflops:.2f}",
            entry.licence,
        )
        for entry in zoo.entries()
    ]
    columns = ["Model", "Kind", "Task", "Inputs", ">Mparams", ">GFLOPs", "Licence"]
    render.table("", columns, rows)


@app.command(name="build")
def build_command(
    name: Name,
    out: Annotated[Path, typer.Option("-o", "--output", metavar="FILE", help="File to write.")],
    seed: Annotated[int, typer.Option(min=0, help="Seed of weights that are not real.")] = 0,
) -> None:
    """Write a model as an ONNX file."""
    from tenantdl import zoo
    from tenantdl.cli import render

    file = zoo.write(name, out, seed)
    render.line(f"Written to {file} ({render.size(file.stat().st_size)})")


@app.command(name="path")
def path_command(name: Name) -> None:
    """Print where the file of a packaged model lies."""
    from tenantdl import zoo
    from tenantdl.cli import render

    render.line(str(zoo.path(name)))
