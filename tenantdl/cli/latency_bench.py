"""`tenantdl bench latency`: one model at a time, ours and the peers' in turns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from tenantdl.cli import parse
from tenantdl.cli.options import JsonFile

if TYPE_CHECKING:
    from tenantdl.bench.latency import Report, Row

PEERS = ("onnxruntime", "openvino")


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command(name="latency")(latency_command)


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
    seed: Annotated[int, typer.Option(min=0, help="Seed of inputs and random weights.")] = 0,
    target: Annotated[
        str, typer.Option(help="Kernels for, and peers held to: native, x86_64:haswell (AVX2).")
    ] = "native",
    json: JsonFile = None,
) -> None:
    """Latency of models, ours and the peers' in turns on the same cores."""
    counts = parse.numbers(threads, "--threads", least=1)
    peers = parse.words(against, "--against", known=PEERS)
    shapes = parse.shapes(shape or ())

    from tenantdl.bench import latency
    from tenantdl.bench.envelope import write_results
    from tenantdl.cli import render
    from tenantdl.cli.bench import command_line

    settings = latency.Settings(peers, counts, batch, runs, seconds, spin, seed, shapes, target)
    with render.progress("bench latency") as progress:
        report = latency.measure(models, settings, progress)
    if json is not None and report.rows:
        write_results(json, report.rows, command=command_line(), seed=seed)
    _show(report, peers)
    if report.failures or not _agree(report.rows):
        raise typer.Exit(1)


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
    _breakdown(report.rows)


def _breakdown(rows: Sequence[Row]) -> None:
    """Where our time goes, for each model and count of threads."""
    from tenantdl.cli import render

    for row in rows:
        kinds = row.get("kinds_ms", {})
        whole = sum(kinds.values())
        shares = ", ".join(
            f"{kind} {ms:.2f} ms ({100 * ms / whole:.0f} %)" for kind, ms in kinds.items() if ms
        )
        if shares:
            render.line(f"{row['model']} on {row['threads']}: {shares}")


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
