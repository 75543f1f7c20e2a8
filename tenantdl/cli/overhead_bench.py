"""`tenantdl bench overhead`, `memory`, `replacing`: what serving takes, beside others."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tenantdl.cli import parse, serve
from tenantdl.cli.options import JsonFile

SERVERS = ("tenantdl", "triton")
_ADDED = (">bare µs", ">added p50 µs", ">added p99 µs")
_REPLACED = (">requests", ">errors", ">load ms", ">steady p50 ms", ">p99 ms")


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command(name="overhead")(overhead_command)
    app.command(name="memory")(memory_command)
    app.command(name="replacing")(replacing_command)


def overhead_command(
    servers: Annotated[str, typer.Option(metavar="NAME,…", help="Which to ask in turns.")] = (
        ",".join(SERVERS)
    ),
    rounds: Annotated[int, typer.Option(min=1, max=10_000, help="Turns of each server.")] = 10,
    calls: Annotated[int, typer.Option(min=1, max=100_000, help="Timed calls a turn.")] = 50,
    gap_ms: Annotated[float, typer.Option(min=0, max=10_000, help="Pause between calls.")] = 0.0,
    saturations: Annotated[
        int, typer.Option(min=0, max=100, help="Turns of saturation (0: none).")
    ] = 3,
    seconds: Annotated[float, typer.Option(min=0.1, max=600, help="Of a saturation.")] = 3.0,
    connections: Annotated[
        int, typer.Option(min=1, max=512, help="Requests under way at saturation.")
    ] = 8,
    json: JsonFile = None,
) -> None:
    """Latency that serving adds, over HTTP, gRPC and shared memory; requests/s at saturation."""
    chosen = parse.words(servers, "--servers", known=SERVERS)

    from tenantdl.bench import overhead
    from tenantdl.cli import render
    from tenantdl.cli.bench import command_line

    settings = overhead.Settings(chosen, rounds, calls, gap_ms, saturations, seconds, connections)
    with render.progress("overhead") as report:
        rows = overhead.measure(settings, json=json, command=command_line(), progress=report)
    latency = [row for row in rows if row["kind"] == "latency"]
    render.table(
        "Latency over the model called in process, measured",
        ["Model", "Protocol", "Shared memory", "Server", *_ADDED],
        [
            [row["model"], row["protocol"], row["shared_memory"], row["server"]]
            + [f"{row[key]:.0f}" for key in ("bare_p50_us", "added_p50_us", "added_p99_us")]
            for row in sorted(latency, key=_cell)
        ],
    )
    full = [row for row in rows if row["kind"] == "saturation"]
    if full:
        render.table(
            "Saturation, measured",
            ["Server", ">bare µs", ">requests/s", ">of the cores"],
            [
                [
                    *(row["server"], f"{row['bare_p50_us']:.0f}", f"{row['requests_s']:.0f}"),
                    f"{row['of_bare']:.0%}",
                ]
                for row in full
            ],
        )


def memory_command(
    workload: serve.Workload,
    target: Annotated[str, typer.Option(metavar="NAME,…", help="As of `bench qos`.")] = "daemon",
    json: JsonFile = None,
) -> None:
    """Memory of a server with all models of a workload, against the sum of their weights."""
    from tenantdl.bench import memory
    from tenantdl.cli import render
    from tenantdl.cli.bench import command_line

    targets = [name.strip() for name in target.split(",") if name.strip()]
    with render.progress("memory") as report:
        rows = memory.measure(workload, targets, json=json, command=command_line(), progress=report)
    render.table(
        "Memory of all processes (proportional shares), measured",
        ["Server", ">models", ">processes", ">weights MiB", ">memory MiB", ">bound MiB"],
        [
            [row["target"], row["models"], row["processes"]]
            + [f"{row[key]:.0f}" for key in ("weights_mib", "memory_mib", "bound_mib")]
            for row in rows
        ],
    )


def replacing_command(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE")],
    times: Annotated[int, typer.Option(min=1, max=10_000, help="Replacements.")] = 50,
    every_s: Annotated[float, typer.Option(min=0, max=3600, help="From one to the next.")] = 1.0,
    steady_s: Annotated[float, typer.Option(min=2, max=3600, help="Without any, first.")] = 20.0,
    rate: Annotated[float, typer.Option(min=0.1, max=100_000, help="Requests a second.")] = 50.0,
    json: JsonFile = None,
) -> None:
    """Versions of a model replaced under load: errors, and latency beside that without."""
    from tenantdl.bench import replacing
    from tenantdl.cli import render
    from tenantdl.cli.bench import command_line

    settings = replacing.Settings(times, every_s, steady_s, rate)
    with render.progress("replacing") as report:
        row = replacing.measure(
            bundle, settings, json=json, command=command_line(), progress=report
        )
    render.table(
        f"{row['replacements']} replacements under load, measured",
        [*_REPLACED, ">replacing p50 ms", ">p99 ms", ">p99 ratio"],
        [
            [
                *(row["requests"], row["errors"]),
                *(f"{row[key]:.1f}" for key in _TIMES),
                row["p99_ratio"],
            ]
        ],
    )


_TIMES = (
    *("replacement_ms", "steady_p50_ms", "steady_p99_ms"),
    *("replacing_p50_ms", "replacing_p99_ms"),
)


def _cell(row: dict[str, object]) -> tuple[str, ...]:
    return tuple(str(row[key]) for key in ("model", "protocol", "shared_memory", "server"))
