"""`tenantdl bench scheduler`, `bench batching`: the batching scheduler alone, and what it gains."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from tenantdl.cli import parse
from tenantdl.cli.options import JsonFile
from tenantdl.units import from_ms

# Said where a scheduler that was measured is not compiled.
PLAIN = "Plain Python: scripts/compile_scheduler.py makes it several times as fast."

Together = Annotated[bool, typer.Option("--together", help="Serve all BUNDLEs at once.")]
Simulate = Annotated[
    bool, typer.Option("--simulate", help="BUNDLEs in virtual time, with their own costs.")
]

Runs = Annotated[
    int, typer.Option(min=1, max=100, help="With seeds from --seed on; medians are shown.")
]


def register(app: typer.Typer) -> None:
    """Add the commands of this module to `app`."""
    app.command(name="scheduler")(scheduler_command)
    app.command(name="batching")(batching_command)


def scheduler_command(
    models: Annotated[str, typer.Option(metavar="N,…", help="Numbers of models.")] = "8,64,512",
    slots: Annotated[str, typer.Option(metavar="N,…", help="Numbers of slots.")] = "64",
    policy: Annotated[str, typer.Option(help="Batching policy, such as deferred.")] = "deferred",
    rate: Annotated[
        float | None, typer.Option(min=1, help="Only this rate, in requests a second.")
    ] = None,
    alpha: Annotated[float, typer.Option(min=0, help="ms that a request adds to a batch.")] = 1.082,
    beta: Annotated[float, typer.Option(min=0, help="ms that every batch takes.")] = 5.204,
    slo: Annotated[float, typer.Option(min=0.001, help="Latency target, ms.")] = 100.0,
    zipf: Annotated[float, typer.Option(min=0, help="Popularity of model i: i^-ZIPF.")] = 0.0,
    warm_up: Annotated[float, typer.Option(min=0, max=3600, help="Seconds not counted.")] = 5.0,
    seconds: Annotated[float, typer.Option(min=0.5, max=3600, help="Seconds counted.")] = 15.0,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the arrivals.")] = 1,
    clock: Annotated[
        str, typer.Option(metavar="wall|cpu", help="cpu: as on a core that nobody else uses.")
    ] = "wall",
    json: JsonFile = None,
) -> None:
    """Requests a second that the batching scheduler takes on one core, on slots that only keep
    time; what a decision takes at half of that."""
    from tenantdl.bench import scheduler
    from tenantdl.cli import render
    from tenantdl.cli.bench import command_line
    from tenantdl.sched.batching.policies import policy as find_policy

    find_policy(policy)
    protocol = scheduler.Protocol(
        from_ms(alpha),
        from_ms(beta),
        from_ms(slo),
        policy,
        zipf,
        warm_up,
        seconds,
        seed,
        (parse.words(clock, "--clock", known=tuple(scheduler.CLOCKS)) or ("wall",))[0],
    )
    with render.progress("bench scheduler") as progress:
        rows = scheduler.measure(
            parse.numbers(models, "--models", least=1),
            parse.numbers(slots, "--slots", least=1),
            protocol,
            rate=rate,
            json=json,
            command=command_line(),
            progress=progress,
        )
    columns = [">models", ">slots", ">requests/s", ">in time/s", ">lag p99 ms"]
    columns += [">decision p50 us", ">p99 us", ">a request us"]
    keys = ["models", "slots", "requests_per_s", "good_per_s", "lag_ms_p99"]
    keys += ["decision_us_p50", "decision_us_p99", "request_us"]
    render.table("", columns, [[row[key] for key in keys] for row in rows])
    if not rows[0]["compiled"]:
        render.line(PLAIN)


def batching_command(
    bundles: Annotated[
        list[Path] | None, typer.Argument(metavar="[BUNDLE]...", help="Served and driven.")
    ] = None,
    case: Annotated[
        str | None, typer.Option(metavar="NAME,…", help="Simulated cases; all without BUNDLEs.")
    ] = None,
    policy: Annotated[
        str, typer.Option(metavar="NAME,…", help="Batching policies on the daemon.")
    ] = "eager,edf-mean,edf-p99,deferred,auto",
    slo_multiple: Annotated[
        str, typer.Option(metavar="X,…", help="SLOs, of the 99th percentile alone.")
    ] = "1.5,3,5",
    load: Annotated[
        str, typer.Option(metavar="X,…", help="Loads, of what the cores can do one by one.")
    ] = "0.6,0.9,1.2",
    seconds: Annotated[float, typer.Option(min=0.5, max=3600, help="Of each load.")] = 8.0,
    seed: Annotated[int, typer.Option(min=0, help="Seed of arrivals and lengths.")] = 1,
    runs: Runs = 1,
    scheduler: Annotated[str, typer.Option(help="Scheduling policy below batching.")] = "tenantdl",
    together: Together = False,
    simulate: Simulate = False,
    cores: Annotated[
        str | None, typer.Option(metavar="ID,…", help="Cores to serve on (default: all).")
    ] = None,
    json: JsonFile = None,
    plots: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Draw finish rates and goodput.")
    ] = None,
) -> None:
    """Finish rate and goodput of batching policies, on a daemon or in virtual time."""
    from tenantdl.bench import batching
    from tenantdl.bench.batching_cases import CASES
    from tenantdl.cli import render
    from tenantdl.cli.bench import command_line

    simulated = case.split(",") if case else () if bundles else CASES
    settings = batching.Settings(
        tuple(policy.split(",")),
        parse.factors(slo_multiple, "--slo-multiple"),
        parse.factors(load, "--load"),
        seconds,
        seed,
        scheduler,
        parse.numbers(cores, "--cores") if cores else (),
        together,
        simulate,
        runs,
    )
    with render.progress("bench batching") as progress:
        rows = batching.measure(
            bundles or (),
            simulated,
            settings,
            json=json,
            plots=plots,
            command=command_line(),
            progress=progress,
        )
    _show(rows)


def _show(rows: Sequence[dict[str, Any]]) -> None:
    from tenantdl.bench.batching_runs import summaries
    from tenantdl.cli import render

    columns = ["Case", "", "Policy", ">SLO", ">requests/s", ">finish rate", "", ">goodput/s"]
    table = [
        (
            row["case"],
            row["label"],
            row["policy"],
            f"{row['slo_multiple']:.2f}",
            f"{row['rate']:.1f}",
            f"{row['finish_rate']:.3f}",
            f"{row['finish_rate_min']:.3f}–{row['finish_rate_max']:.3f}" if row["runs"] > 1 else "",
            f"{row['goodput']:.1f}",
        )
        for row in summaries(rows)
    ]
    render.table("", columns, table)
