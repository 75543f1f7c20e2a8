"""`tenantdl bench interference` and `versions`: slowdowns predicted, and what that is worth."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tenantdl.cli import parse
from tenantdl.cli.options import JsonFile


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command(name="interference")(interference_command)
    app.command(name="versions")(versions_command)


def interference_command(
    machine: Annotated[
        str, typer.Option(metavar="NAME,…", help="Declared machines, simulated; '' for none.")
    ] = "64-core",
    encounters: Annotated[
        int, typer.Option(min=20, max=100_000, help="Of a simulated campaign.")
    ] = 1200,
    seed: Annotated[int, typer.Option(min=0, help="Of the campaign and its splits.")] = 1,
    profile: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Of `tenantdl profile --corun` [default: out/profile.sqlite]."
        ),
    ] = None,
    json: JsonFile = None,
) -> None:
    """How well slowdowns are predicted, and what wrong choices of variants cost.

    On simulated machines, and on this one if it has a profile of bundles beside each other.
    """
    from tenantdl.bench import interference
    from tenantdl.bench.envelope import write_results
    from tenantdl.cli import render
    from tenantdl.cli.bench import command_line

    names = [name.strip() for name in machine.split(",") if name.strip()]
    rows = [row for name in names for row in interference.simulated(name, encounters, seed)]
    measured = profile or Path("out/profile.sqlite")
    if profile is not None or measured.is_file():
        rows += interference.measured(measured, seed)
    else:
        render.note("this machine has no profile: tenantdl profile --corun BUNDLE… makes one")
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


def versions_command(
    workloads: Annotated[list[Path], typer.Argument(metavar="WORKLOAD.toml…")],
    machine: Annotated[str, typer.Option(help="A declared machine.")] = "64-core",
    policy: Annotated[str, typer.Option(metavar="NAME,…", help="Policies.")] = "tenantdl,veltair",
    knowledge: Annotated[
        str, typer.Option(metavar="NAME,…", help="Of interference: none, learned, oracle.")
    ] = "none,learned,oracle",
    versions: Annotated[str, typer.Option(metavar="N,…", help="Versions of a layer.")] = "5",
    seeds: Annotated[int, typer.Option(min=1, max=100, help="Of arrivals.")] = 1,
    requests: Annotated[int, typer.Option(min=50, max=100_000, help="Of a run.")] = 400,
    jobs: Annotated[int, typer.Option(min=1, max=256, help="Processes.")] = 1,
    json: JsonFile = None,
) -> None:
    """What versions, and knowing who slows whom down, are worth on a simulated machine."""
    counts = parse.numbers(versions, "--versions", least=1)

    from tenantdl.bench import versions as bench
    from tenantdl.cli import render
    from tenantdl.cli.bench import command_line
    from tenantdl.load.workload import load_workload

    rows = bench.run(
        [load_workload(path) for path in workloads],
        machine=machine,
        policies=policy,
        knowledge=[name.strip() for name in knowledge.split(",") if name.strip()],
        versions=counts,
        seeds=seeds,
        requests=requests,
        jobs=jobs,
        json=json,
        command=command_line(),
        report=render.note,
    )
    columns = ["Workload", "Policy", "Knowledge", ">versions", ">rate/s", ">least", ">most"]
    table = [
        [row[key] for key in ("workload", "policy", "knowledge", "versions")]
        + [f"{row[key]:.1f}" for key in ("qps_at_95", "qps_min", "qps_max")]
        + ["–" if row["gain"] is None else f"{row['gain']:.2f}"]
        for row in rows
    ]
    title = f"Highest rates with 95 % in time, simulated on {machine}"
    render.table(title, [*columns, ">of one version"], table)
