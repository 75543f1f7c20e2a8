"""`tenantdl bench scheduler`: the batching scheduler alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tenantdl.cli import parse
from tenantdl.units import from_ms


def register(app: typer.Typer) -> None:
    """Add the commands of this module to `app`."""
    app.command(name="scheduler")(scheduler_command)


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
    json: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write the results.")
    ] = None,
) -> None:
    """Requests a second that the batching scheduler takes on one core, on slots that only keep
    time; what a decision takes at half of that."""
    from tenantdl.bench import scheduler
    from tenantdl.cli import render
    from tenantdl.cli.bench import command_line
    from tenantdl.sched.batching.policies import policy as find_policy

    find_policy(policy)
    protocol = scheduler.Protocol(
        from_ms(alpha), from_ms(beta), from_ms(slo), policy, zipf, warm_up, seconds, seed
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
    columns += [">decision p50 us", ">p99 us"]
    keys = ["models", "slots", "requests_per_s", "good_per_s", "lag_ms_p99"]
    keys += ["decision_us_p50", "decision_us_p99"]
    render.table("", columns, [[row[key] for key in keys] for row in rows])
    if not rows[0]["compiled"]:
        render.line("Plain Python: scripts/compile_batching.py makes it several times as fast.")
