"""`tenantdl simulate`: workloads in virtual time on declared machines, under any policies."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from tenantdl.cli import serve
from tenantdl.cli.options import JsonFile

_COLUMNS = [
    "Policy",
    ">seed",
    ">rate/s",
    ">in time",
    ">worst tenant",
    ">mean ms",
    ">p95 ms",
    ">p99 ms",
]
_COLUMNS += [">cores in use", ">conflicts"]


Machine = Annotated[
    str, typer.Option(metavar="NAME|FILE", help="A declared machine, or a .toml file.")
]
Policy = Annotated[
    str | None, typer.Option(metavar="NAME,…", help="Policies; default: the workload's.")
]
Rate = Annotated[
    float | None, typer.Option(min=0.001, help="Requests a second; default: the workload's.")
]


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command(name="simulate")(simulate_command)


def simulate_command(
    workload: serve.Workload,
    machine: Machine = "64-core",
    policy: Policy = None,
    rate: Rate = None,
    find_qps: Annotated[
        float | None,
        typer.Option(min=0.01, max=1, help="Find the highest rate with this share in time."),
    ] = None,
    each: Annotated[
        bool, typer.Option("--each", help="Every tenant has to have that share in time.")
    ] = False,
    seeds: Annotated[int, typer.Option(min=1, max=100, help="Runs, each with its own seed.")] = 1,
    requests: Annotated[int, typer.Option(min=10, max=1_000_000, help="Of a run.")] = 1500,
    jobs: Annotated[int, typer.Option(min=1, max=64, help="Processes that search.")] = 1,
    vary: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=FACTOR", help="Multiply contention, overheads or scaling (repeatable)."
        ),
    ] = None,
    json: JsonFile = None,
    journal: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The scheduler's journal (one policy, one seed)."),
    ] = None,
    plots: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Draw cores over time, QoS and conflicts by rate."),
    ] = None,
) -> None:
    """Run a workload in virtual time and see who got what was promised.

    Everything is simulated: on published or modelled profiles, on a declared machine.
    """
    from tenantdl.bench import simulation
    from tenantdl.cli import render

    with render.working("simulating"):
        result = simulation.run(
            workload,
            machine=machine,
            policies=policy,
            rate=rate,
            find_qps=find_qps,
            each=each,
            seeds=seeds,
            requests=requests,
            jobs=jobs,
            vary=vary or (),
            json=json,
            journal=journal,
            plots=plots,
            command=shlex.join(["tenantdl", *sys.argv[1:]]),
        )
    title = f"{result.workload.name} on {machine}, simulated"
    render.table(title, _COLUMNS, [_row(row) for row in result.rows])
    for path in result.plots:
        render.line(f"Plot: {path}")


def _row(row: dict[str, Any]) -> list[str]:
    return [
        row["policy"],
        str(row["seed"]),
        f"{row['rate']:.1f}",
        f"{row['attainment']:.1%}",
        f"{row['attainment_least']:.1%}",
        *(_number(row[key]) for key in ("mean_latency_ms", "p95_ms", "p99_ms")),
        f"{row['core_usage']:.1f}",
        f"{row['conflict_rate']:.1%}",
    ]


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"
