"""`tenantdl bench`: measure on this machine, beside other runtimes or under load."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from tenantdl.cli import (
    application_bench,
    batching_bench,
    kernels_bench,
    latency_bench,
    load_bench,
    overhead_bench,
    parse,
    plan_bench,
    predict_bench,
    serve,
    survival_bench,
)
from tenantdl.cli.options import JsonFile

# Run on the daemon by `bench policies` unless others are named.
COMPARED = (
    "model-fcfs",
    "edf",
    "layerwise",
    "fixed-block(6)",
    "static-partition",
    "thin-instances",
    "planaria",
    "prema",
    "parties",
    "veltair-literal",
    "veltair",
    "tenantdl",
)

app = typer.Typer(no_args_is_help=True, help="Measure latency or quality of service.")
application_bench.register(app)
plan_bench.register(app)
load_bench.register(app)
survival_bench.register(app)
latency_bench.register(app)
overhead_bench.register(app)
kernels_bench.register(app)
predict_bench.register(app)
batching_bench.register(app)

Seed = Annotated[int, typer.Option(min=0, help="Seed of inputs and random weights.")]


@app.command(name="policies")
def policies_command(
    workloads: Annotated[list[Path], typer.Argument(metavar="WORKLOAD.toml…")],
    policy: Annotated[str, typer.Option(metavar="NAME,…", help="Policies.")] = ",".join(COMPARED),
    rate: Annotated[
        float | None, typer.Option(min=0.001, help="Requests a second, all tenants together.")
    ] = None,
    duration: Annotated[
        float | None, typer.Option(min=0.1, max=86400, help="Seconds of load a run.")
    ] = None,
    machine: Annotated[
        str | None,
        typer.Option(metavar="FILE.toml", help="Also simulate, on `tenantdl profile --machine`."),
    ] = None,
    json: JsonFile = None,
) -> None:
    """Workloads × policies on the daemon, one after the other; beside the simulator if asked."""
    from tenantdl.bench import policies
    from tenantdl.cli import render

    with render.progress("bench policies") as progress:
        rows = policies.run(
            workloads,
            policies=policy,
            rate=rate,
            duration_s=duration,
            machine=machine,
            json=json,
            command=command_line(),
            progress=progress,
        )
    columns = ["Workload", "Policy", "Tenant", ">in time", ">p50 ms", ">p95 ms", ">p99 ms"]
    columns += [">simulated: in time", ">p50 ms", ">p95 ms"]
    table = [
        [row[key] for key in ("workload", "policy", "tenant")]
        + [_number(row["attainment"], ".1%")]
        + [_number(row[key], ".1f") for key in ("p50_ms", "p95_ms", "p99_ms")]
        + [_number(row.get("simulated_attainment"), ".1%")]
        + [_number(row.get(f"simulated_{key}"), ".1f") for key in ("p50_ms", "p95_ms")]
        for row in rows
    ]
    render.table("Policies, measured on this machine", columns, table)


@app.command(name="decisions")
def decisions_command(
    workload: serve.Workload,
    machine: Annotated[
        str, typer.Option(metavar="NAME,…", help="Declared machines.")
    ] = "16-core,64-core,128-core",
    tenants: Annotated[
        str, typer.Option(metavar="N,…", help="Numbers of tenants.")
    ] = "4,16,64,256,512",
    policy: Annotated[str, typer.Option(metavar="NAME,…", help="Policies.")] = "tenantdl",
    requests: Annotated[int, typer.Option(min=10, max=100_000, help="Of a run.")] = 400,
    json: JsonFile = None,
) -> None:
    """What a scheduling decision costs as machines and tenants grow."""
    counts = parse.numbers(tenants, "--tenants", least=1)

    from tenantdl.bench import decisions
    from tenantdl.cli import render

    with render.working("measuring decisions"):
        rows = decisions.measure(
            workload,
            machines=[name.strip() for name in machine.split(",")],
            tenants=counts,
            policies=policy,
            requests=requests,
            json=json,
            command=command_line(),
        )
    columns = ["Policy", "Machine", ">tenants", ">decisions", ">mean µs", ">p50 µs", ">p99 µs"]
    table = [
        [row[key] for key in ("policy", "machine", "tenants", "decisions")]
        + [f"{row[key]:.1f}" for key in ("mean_us", "p50_us", "p99_us")]
        + [row["decisions_per_s"]]
        for row in rows
    ]
    title = "Scheduling decisions, measured on this machine under simulated load"
    render.table(title, [*columns, ">decisions/s"], table)
    if not rows[0]["compiled"]:
        render.line(batching_bench.PLAIN)


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


def command_line() -> str:
    """What was typed, for result files."""
    return shlex.join(["tenantdl", *sys.argv[1:]])
