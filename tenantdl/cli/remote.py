"""Commands that talk to a running daemon: status, top, load, unload, trace, infer."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tenantdl.cli.options import URL, Json, Token, Url

if TYPE_CHECKING:
    from numpy.typing import NDArray

Model = Annotated[str, typer.Argument(metavar="MODEL", help="As it is served.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this module to `app`."""
    app.command(name="status")(status_command)
    app.command(name="top")(top_command)
    app.command(name="infer")(infer_command)
    app.command(name="load")(load_command)
    app.command(name="unload")(unload_command)
    app.command(name="trace")(trace_command)


def status_command(url: Url = URL, token: Token = None, json: Json = None) -> None:
    """Show what a daemon does: tenants, latencies, cores, advice; for the last minute."""
    import msgspec

    from tenantdl.cli import render, watch
    from tenantdl.load.client import Client

    status = Client(url, token).status()
    if json:
        render.results(json, [msgspec.to_builtins(status)])
    else:
        render.console().print(watch.frame(status))


def top_command(
    url: Url = URL,
    token: Token = None,
    every: Annotated[
        float, typer.Option(min=0.1, max=60, metavar="SECONDS", help="Between two looks.")
    ] = 1.0,
    count: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Stop after so many looks.")
    ] = None,
) -> None:
    """Watch a daemon live, until Ctrl-C."""
    from rich.live import Live

    from tenantdl.cli import render, watch
    from tenantdl.load.client import Client

    client = Client(url, token)
    first = client.status()
    console = render.console()
    with Live(
        watch.frame(first), console=console, screen=console.is_terminal, auto_refresh=False
    ) as live:
        looks = 1
        while count is None or looks < count:
            time.sleep(every)
            live.update(watch.frame(client.status()), refresh=True)
            looks += 1


def infer_command(
    model: Model,
    source: Annotated[
        Path | None, typer.Option("--input", metavar="X.npz", help="Arrays named like the inputs.")
    ] = None,
    random: Annotated[
        int | None, typer.Option("--random", metavar="SEED", help="Random inputs instead.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", metavar="Y.npz", help="Where the outputs go.")
    ] = None,
    tenant: Annotated[str | None, typer.Option(help="Who asks; default: the model's.")] = None,
    version: Annotated[str, typer.Option(help="Of the model; default: the newest.")] = "",
    shape: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=1x3x224x224", help="Of a random input (repeatable)."),
    ] = None,
    url: Url = URL,
    token: Token = None,
    json: Json = None,
) -> None:
    """Run one inference on a daemon."""
    if (source is None) == (random is None):
        raise typer.BadParameter("give either --input X.npz or --random SEED")

    from tenantdl.cli import parse, render, report, tensors
    from tenantdl.load.client import Client
    from tenantdl.load.inputs import random_inputs

    client = Client(url, token)
    wanted, _ = client.tensors(model, version)
    if source is not None:
        inputs = tensors.read_inputs(source, wanted)
    else:
        inputs = random_inputs(tensors.with_shapes(wanted, parse.shapes(shape or ())), random or 0)
    parameters = {"tenant": tenant} if tenant else {}
    began = time.monotonic()
    outputs = client.infer(model, inputs, version=version, parameters=parameters)
    took = time.monotonic() - began
    # Text has no length of its own in a file of arrays.
    outputs = {name: v.astype("S") if v.dtype == object else v for name, v in outputs.items()}
    if output is not None:
        tensors.write_outputs(output, outputs)
    if json:
        render.results(json, [_inferred(model, outputs, took)], seed=random)
    else:
        report.outputs(outputs, output)
        render.note(f"{1000 * took:.1f} ms")


def _inferred(model: str, outputs: Mapping[str, NDArray[Any]], took_s: float) -> dict[str, Any]:
    return {
        "experiment": "infer",
        "model": model,
        "label": "measured",
        "latency_ms": round(1000 * took_s, 3),
        "outputs": {name: [str(v.dtype), list(v.shape)] for name, v in outputs.items()},
    }


def load_command(model: Model, url: Url = URL, token: Token = None) -> None:
    """Load a model of the daemon's repository, or its newest version anew."""
    from tenantdl.cli import render
    from tenantdl.load.client import Client

    client = Client(url, token, timeout_s=600)
    with render.working(f"loading {model}"):
        client.load(model)
    render.line(f"{model} is loaded")
    for entry in client.index():
        if entry.get("name") == model:
            render.line(f"  version {entry.get('version', '')}: {entry.get('state', '')}")


def unload_command(model: Model, url: Url = URL, token: Token = None) -> None:
    """Unload a model; requests that are inside are answered first."""
    from tenantdl.cli import render
    from tenantdl.load.client import Client

    with render.working(f"unloading {model}"):
        Client(url, token, timeout_s=600).unload(model)
    render.line(f"{model} is unloaded")


def trace_command(
    out: Annotated[
        Path, typer.Option("-o", "--output", metavar="FILE", help="Chrome trace to write.")
    ] = Path("trace.json"),
    journal: Annotated[
        Path | None,
        typer.Option(metavar="JOURNAL", help="Of a journal instead of a running daemon."),
    ] = None,
    url: Url = URL,
    token: Token = None,
) -> None:
    """Write which block ran on which core when, for ui.perfetto.dev or chrome://tracing."""
    from tenantdl.cli import render
    from tenantdl.documents import write_document
    from tenantdl.load.client import Client

    pieces = _of_journal(journal) if journal else Client(url, token).trace()
    body = b"".join(pieces)
    write_document(out, body)
    blocks = body.count(b'"ph":"X"')
    render.line(f"{blocks} blocks written to {out}: open it at ui.perfetto.dev")


def _of_journal(journal: Path) -> Iterator[bytes]:
    from tenantdl.daemon.observe.chrome import chrome_trace
    from tenantdl.daemon.observe.timeline import read_blocks

    return chrome_trace(read_blocks(journal))
