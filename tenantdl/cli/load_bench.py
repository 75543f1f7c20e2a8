"""`tenantdl bench qos`, `report` and `loadgen`: serving under load."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tenantdl.cli import parse, serve
from tenantdl.cli.options import JsonFile
from tenantdl.errors import UserError

if TYPE_CHECKING:
    from tenantdl.bench.serving.compare import Settings


Target = Annotated[
    str | None,
    typer.Option(
        metavar="NAME,…",
        help="Find the highest rates that hold, on: daemon[-1|-2], sim, triton, triton-static,"
        " onnxruntime[-pools|-shared], openvino[-latency]. Without: one rate on the daemon.",
    ),
]
Rate = Annotated[
    float | None,
    typer.Option(min=0.001, help="Requests a second, all tenants together (no search then)."),
]
Duration = Annotated[
    float | None, typer.Option(min=0.1, max=86400, help="Seconds of load (of each rate).")
]
Policy = Annotated[
    str | None, typer.Option(help="Scheduling policy, such as tenantdl, edf, model-fcfs.")
]
Seed = Annotated[int | None, typer.Option(min=0, help="Seed of the arrivals.")]
Report = Annotated[Path | None, typer.Option(metavar="FILE.html", help="Write a page with plots.")]
Runs = Annotated[int, typer.Option(min=1, max=1000, help="Runs, targets in turns (with --target).")]
Step = Annotated[
    float, typer.Option(min=1.01, max=4, help="Ratio of neighbouring rates (with --target).")
]
Near = Annotated[
    list[Path] | None,
    typer.Option(metavar="FILE", help="Earlier results to begin the search at (repeatable)."),
]
Overload = Annotated[
    str | None,
    typer.Option(metavar="FACTOR,…", help="Also drive these multiples of the rate that held."),
]
Only = Annotated[
    str | None,
    typer.Option(metavar="TENANT,…", help="Only these send anything (with --target)."),
]
Machine = Annotated[
    str | None,
    typer.Option(metavar="FILE", help="Machine of target sim (default: measured first)."),
]


def register(app: typer.Typer) -> None:
    """Add the commands of this module to `app`."""
    app.command(name="qos")(qos_command)
    app.command(name="report")(report_command)
    app.command(name="loadgen")(loadgen_command)


def qos_command(
    workload: serve.Workload,
    target: Target = None,
    rate: Rate = None,
    duration: Duration = None,
    policy: Policy = None,
    seed: Seed = None,
    json: JsonFile = None,
    report: Report = None,
    journal: serve.Journal = None,
    runs: Runs = 3,
    step: Step = 1.1,
    near: Near = None,
    overload: Overload = None,
    only: Only = None,
    machine: Machine = None,
) -> None:
    """Serve a workload, drive its load, and see who got what was promised.

    What is left out is as the workload says.
    """
    comparing = {"--near": near, "--overload": overload, "--only": only, "--machine": machine}
    _refuse_ignored(target, journal, comparing)
    if target is not None:
        from tenantdl.bench.serving.compare import Settings

        settings = Settings(
            targets=tuple(dict.fromkeys(name.strip() for name in target.split(","))),
            runs=runs,
            duration_s=duration,
            rate=rate,
            seed=seed,
            step=step,
            policy=policy,
            near=tuple(near or ()),
            overload=parse.factors(overload or "", "--overload"),
            only=tuple(name.strip() for name in (only or "").split(",") if name.strip()),
            machine=machine,
        )
        _compare(workload, settings, json, report)
        return
    from tenantdl.bench import qos
    from tenantdl.cli import render
    from tenantdl.cli.bench import command_line

    result = qos.run(
        workload,
        rate=rate,
        duration_s=duration,
        seed=seed,
        policy=policy,
        json=json,
        report=report,
        journal=journal,
        command=command_line(),
    )
    load = result.workload.load
    title = f"{result.workload.name}: {load.duration_s:g} s of {load.arrivals} load, policy"
    title += f" {result.workload.scheduler.policy}, measured on this machine"
    columns = ["Tenant", ">QoS ms", ">rate/s", ">requests", ">in time", ">p50 ms", ">p95 ms"]
    columns += [">p99 ms", ">answered/s", "Not answered"]
    render.table(title, columns, [_qos_row(row) for row in result.rows])
    if report is not None:
        render.line(f"Report with plots: {report}")


def _refuse_ignored(
    target: str | None, journal: Path | None, comparing: Mapping[str, object]
) -> None:
    """Raise UserError for options that would not be looked at; `comparing`: those of targets."""
    given = [name for name, value in comparing.items() if value]
    if target is None and given:
        raise UserError(f"{given[0]} says nothing without --target")
    if target is not None and journal is not None:
        raise UserError("--journal is of one daemon at one rate: leave --target out")


def loadgen_command(
    workload: serve.Workload,
    target: Annotated[str, typer.Option(metavar="NAME,…", help="As for bench qos.")] = "daemon",
    rate: Rate = None,
    duration: Duration = None,
    json: JsonFile = None,
) -> None:
    """A second opinion: MLPerf LoadGen's Server scenario, a process a tenant, at one rate."""
    from tenantdl.bench.serving import second_opinion
    from tenantdl.cli import render
    from tenantdl.cli.bench import command_line
    from tenantdl.load.workload import load_workload

    rows = second_opinion.run(
        load_workload(workload),
        tuple(dict.fromkeys(name.strip() for name in target.split(","))),
        rate=rate,
        duration_s=duration,
        json=json,
        command=command_line(),
        report=render.note,
    )
    columns = ["Target", "Tenant", ">QoS ms", ">rate/s", ">done/s", ">p50 ms", ">p95 ms", ">p99 ms"]
    table = [
        [row["target"], row["tenant"], f"{row['qos_ms']:g}"]
        + [f"{row[key]:.1f}" for key in ("rate", "achieved", "p50_ms", "p95_ms", "p99_ms")]
        + [str(row["refused"]), "yes" if row["valid"] else "no"]
        for row in rows
    ]
    render.table("LoadGen, measured", [*columns, ">refused", "valid"], table)


def report_command(
    results: Annotated[list[Path], typer.Argument(metavar="FILE…", help="Of bench qos --target.")],
    out: Annotated[Path, typer.Option("-o", "--output", metavar="FILE.html", help="The page.")],
) -> None:
    """One page of several result files; those of unlike machines do not go together."""
    from tenantdl.bench.envelope import read_results
    from tenantdl.bench.serving.page import write_page
    from tenantdl.bench.serving.rows import EXPERIMENT
    from tenantdl.cli import render
    from tenantdl.errors import UserError

    found = read_results(*results)
    rows = [row for row in found.results if row.get("experiment") == EXPERIMENT]
    if not rows:
        raise UserError("no results of `bench qos --target` in there", where=str(results[0]))
    write_page(out, rows, found.command)
    render.line(f"Report with plots: {out}")


def _compare(workload: Path, settings: Settings, json: Path | None, report: Path | None) -> None:
    from tenantdl.bench.serving import compare
    from tenantdl.cli import render
    from tenantdl.cli.bench import command_line

    rows = compare.run(
        workload, settings, json=json, page=report, command=command_line(), report=render.note
    )
    columns = ["Target", ">run", ">at 95 %", ">at 99 %", ">rate/s", ">worst in time", ">p50 ms"]
    columns += [">p95 ms", ">p99 ms", ">goodput/s", ">cores", ">client"]
    table = []
    for row in rows:
        worst = next(p["worst"] for p in row["probes"] if p["rate"] == row["rate"])
        table.append(
            [row["target"], str(row["run"])]
            + [_number(row[key], ".1f") for key in ("qps_at_95", "qps_at_99", "rate")]
            + [_number(worst, ".1%")]
            + [_number(row[key], ".1f") for key in ("p50_ms", "p95_ms", "p99_ms", "goodput")]
            + [_number(row[key], ".2f") for key in ("core_usage", "client_core_usage")]
        )
    title = f"{rows[0]['workload']}: highest rates that hold for every tenant, "
    title += "measured on this machine (sim: simulated)"
    render.table(title, columns, table)
    for row in rows:
        for over in row.get("overload", ()):
            render.line(
                f"{row['target']}, run {row['run']}: {over['factor']:g} times as much load, "
                f"{over['goodput']:.1f} in time a second ({over['of_peak']:.0%} of the peak)"
            )
    if report is not None:
        render.line(f"Report with plots: {report}")


def _qos_row(row: dict[str, Any]) -> list[str]:
    refused = ", ".join(f"{count} × {what}" for what, count in row["refused"].items())
    return [
        row["tenant"],
        _number(row.get("qos_ms"), "g"),
        _number(row["rate"], ".1f"),
        str(row["requests"]),
        _number(row["attainment"], ".1%"),
        *(_number(row[key], ".1f") for key in ("p50_ms", "p95_ms", "p99_ms", "throughput")),
        refused or "–",
    ]


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)
