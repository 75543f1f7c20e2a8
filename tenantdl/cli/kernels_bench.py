"""`tenantdl bench kernels`: every operator beside the peers' and beside the machine's ceilings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from tenantdl.cli import parse
from tenantdl.cli.latency_bench import PEERS
from tenantdl.cli.options import JsonFile

if TYPE_CHECKING:
    from tenantdl.bench.kernels import Row


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command(name="kernels")(kernels_command)


def kernels_command(
    models: Annotated[list[str], typer.Argument(metavar="MODEL", help="Zoo names or ONNX files.")],
    against: Annotated[
        str, typer.Option(metavar="NAME,…", help="Peers out of onnxruntime, openvino; '' for none.")
    ] = ",".join(PEERS),
    threads: Annotated[str, typer.Option(metavar="N,…", help="Counts of threads.")] = "1",
    operators: Annotated[
        str, typer.Option(metavar="OP,…", help="ONNX operators to measure.")
    ] = "Conv,ConvTranspose,MatMul,Gemm",
    batch: Annotated[int, typer.Option(min=1, help="Batch size.")] = 1,
    runs: Annotated[int, typer.Option(min=5, help="Timed calls a target, at least.")] = 40,
    seed: Annotated[int, typer.Option(min=0, help="Seed of inputs and random weights.")] = 0,
    json: JsonFile = None,
) -> None:
    """Roofline of every distinct operator of some models, each alone and warm."""
    counts = parse.numbers(threads, "--threads", least=1)
    peers = parse.words(against, "--against", known=PEERS)
    kinds = tuple(word.strip() for word in operators.split(",") if word.strip())

    from tenantdl.bench import kernels
    from tenantdl.bench.envelope import write_results
    from tenantdl.cli import render
    from tenantdl.cli.bench import command_line

    settings = kernels.Settings(peers, counts, kinds, batch, runs, seed)
    with render.progress("bench kernels") as progress:
        rows, failures = kernels.measure(models, settings, progress)
    if json is not None:
        write_results(json, rows, command=command_line(), seed=seed)
    _show(rows, peers)
    for failure in failures:
        render.note(f"not measured: {failure}")
    if failures:
        raise typer.Exit(1)


def _show(rows: Sequence[Row], peers: Sequence[str]) -> None:
    from tenantdl.bench.kernels import OURS
    from tenantdl.cli import render

    grouped: dict[tuple[str, str, int], dict[str, Row]] = {}
    for row in rows:
        key = row["model"], row["operator"], row["threads"]
        grouped.setdefault(key, {})[row["target"]] = row
    columns = ["Operator", ">×", ">threads", ">µs", ">GFLOP/s", ">GB/s", "Bound", ">share"]
    columns += [f">{peer} µs" for peer in peers]
    table = []
    for (_, operator, threads), by_target in grouped.items():
        ours = by_target[OURS]
        table.append(
            [
                *(operator, ours["count"], threads, f"{ours['median_us']:.1f}"),
                *(f"{ours['gflops']:.1f}", f"{ours['gbytes_s']:.1f}", ours["bound"]),
                f"{100 * ours['share']:.0f} %",
                *(f"{by_target[p]['median_us']:.1f}" if p in by_target else "–" for p in peers),
            ]
        )
    render.table("Operators alone, warm, measured on this machine (medians)", columns, table)
    for threads in dict.fromkeys(row["threads"] for row in rows):
        peak = next(row["peak_gflops"] for row in rows if row["threads"] == threads)
        render.line(f"peak on {threads} thread(s), measured: {peak:.0f} GFLOP/s in fp32")
