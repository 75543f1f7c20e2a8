"""`tenantdl bench`: measure on this machine, beside other runtimes or under load."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tenantdl.cli import parse, plan_bench, serve

if TYPE_CHECKING:
    from tenantdl.bench.latency import Report, Row

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
PEERS = ("onnxruntime", "openvino")

app = typer.Typer(no_args_is_help=True, help="Measure latency or quality of service.")
plan_bench.register(app)

Json = Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the results.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of inputs and random weights.")]


@app.command(name="latency")
def latency_command(
    models: Annotated[list[str], typer.Argument(metavar="MODEL", help="Zoo names or ONNX files.")],
    against: Annotated[
        str, typer.Option(metavar="NAME,…", help="Peers out of onnxruntime, openvino; '' for none.")
    ] = ",".join(PEERS),
    threads: Annotated[str, typer.Option(metavar="N,…", help="Counts of threads.")] = "1,2",
    batch: Annotated[int, typer.Option(min=1, help="Batch size.")] = 1,
    runs: Annotated[int, typer.Option(min=5, help="Timed calls a target, at least.")] = 30,
    seconds: Annotated[float, typer.Option(min=0, help="Time a model and thread count.")] = 0,
    shape: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=1x3x224x224", help="Shape of an input (repeatable)."),
    ] = None,
    spin: Annotated[
        bool, typer.Option("--spin", help="Let onnxruntime's idle threads spin.")
    ] = False,
    seed: Seed = 0,
    json: Json = None,
) -> None:
    """Latency of models, ours and the peers' in turns on the same cores."""
    counts = parse.numbers(threads, "--threads", least=1)
    peers = parse.words(against, "--against", known=PEERS)
    shapes = parse.shapes(shape or ())

    from tenantdl.bench import latency
    from tenantdl.bench.envelope import write_results
    from tenantdl.cli import render

    settings = latency.Settings(peers, counts, batch, runs, seconds, spin, seed, shapes)
    report = latency.measure(models, settings, render.note)
    if json is not None and report.rows:
        write_results(json, report.rows, command=command_line(), seed=seed)
    _show(report, peers)
    if report.failures or not _agree(report.rows):
        raise typer.Exit(1)


@app.command(name="qos")
def qos_command(
    workload: serve.Workload,
    rate: Annotated[
        float | None, typer.Option(min=0.001, help="Requests a second, all tenants together.")
    ] = None,
    duration: Annotated[
        float | None, typer.Option(min=0.1, max=86400, help="Seconds of load.")
    ] = None,
    policy: Annotated[
        str | None, typer.Option(help="Scheduling policy, such as tenantdl, edf, model-fcfs.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of the arrivals.")] = None,
    json: Json = None,
    report: Annotated[
        Path | None, typer.Option(metavar="FILE.html", help="Write a page with plots.")
    ] = None,
    journal: serve.Journal = None,
) -> None:
    """Serve a workload, drive its load, and see who got what was promised.

    What is left out is as the workload says.
    """
    from tenantdl.bench import qos
    from tenantdl.cli import render

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
    json: Json = None,
) -> None:
    """Workloads × policies on the daemon, one after the other; beside the simulator if asked."""
    from tenantdl.bench import policies
    from tenantdl.cli import render

    rows = policies.run(
        workloads,
        policies=policy,
        rate=rate,
        duration_s=duration,
        machine=machine,
        json=json,
        command=command_line(),
        report=render.note,
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
    json: Json = None,
) -> None:
    """What a scheduling decision costs as machines and tenants grow."""
    counts = parse.numbers(tenants, "--tenants", least=1)

    from tenantdl.bench import decisions
    from tenantdl.cli import render

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


def command_line() -> str:
    """What was typed, for result files."""
    return shlex.join(["tenantdl", *sys.argv[1:]])


def _agree(rows: Sequence[Row]) -> bool:
    from tenantdl.bench.latency import DIFFERENCE_MAX

    return all(row.get("difference", 0.0) <= DIFFERENCE_MAX for row in rows)


def _show(report: Report, peers: Sequence[str]) -> None:
    from tenantdl.bench import latency
    from tenantdl.cli import render

    grouped: dict[tuple[str, int], dict[str, Row]] = {}
    for row in report.rows:
        grouped.setdefault((row["model"], row["threads"]), {})[row["target"]] = row
    ratios = latency.ratios(report.rows)
    targets = (latency.OURS, *peers)
    columns = ["Model", ">threads", *(f">{name} ms" for name in targets)]
    columns += [">ratio to better peer", ">max difference", ">runs"]
    table = []
    for (model, threads), by_target in grouped.items():
        times = [_time(by_target.get(name)) for name in targets]
        apart = [row["difference"] for row in by_target.values() if "difference" in row]
        ratio = ratios.get((model, threads))
        end = [
            f"{ratio:.2f}" if ratio is not None else "–",
            f"{max(apart):.1e}" if apart else "–",
            min(row["runs"] for row in by_target.values()),
        ]
        table.append([model, threads, *times, *end])
    if table:
        render.table("Median (p05–p95), measured on this machine", columns, table)
    _footnotes(report, ratios)


def _footnotes(report: Report, ratios: dict[tuple[str, int], float]) -> None:
    from tenantdl.bench import latency
    from tenantdl.cli import render

    for count in dict.fromkeys(threads for _, threads in ratios):
        values = [ratio for (_, threads), ratio in ratios.items() if threads == count]
        mean = latency.geometric_mean(values)
        render.line(f"geometric mean of {len(values)} ratios on {count} thread(s): {mean:.2f}")
    if report.rows:
        spread = max(row["p95_ms"] / row["p05_ms"] for row in report.rows)
        drift = [time for row in report.rows for time in row["calibration_ms"]]
        render.line(
            f"noise: p95/p05 up to {spread:.2f}; the calibration loop took"
            f" {min(drift):.2f}–{max(drift):.2f} ms"
        )
    if not _agree(report.rows):
        render.note(f"outputs differ by more than {latency.DIFFERENCE_MAX:g} of the largest")
    for failure in report.failures:
        render.note(f"not measured: {failure}")


def _time(row: Row | None) -> str:
    if row is None:
        return "–"
    return f"{row['median_ms']:.2f} ({row['p05_ms']:.2f}–{row['p95_ms']:.2f})"
