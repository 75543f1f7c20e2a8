"""`tenantdl compile`, `run` and `inspect`: from an ONNX model to a bundle, and what is in one."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from tenantdl.cli import parse
from tenantdl.cli.options import Json

AUTO = (1, 2, 4, 8, 16)
Batch = Annotated[
    str,
    typer.Option(
        metavar="N|1,2,…|auto",
        help="Extent of a symbolic first dimension; several sizes are for requests that run"
        " together (auto: 1,2,4,8,16).",
    ),
]
Buckets = Annotated[
    list[str] | None,
    typer.Option(
        metavar="DIM=16,32,…",
        help="Extents of an open dimension, by its name or as INPUT.AXIS; also"
        " DIM=FIRST:LAST:STEP, or DIM=auto: a quarter, half and all of what --shape says"
        " (repeatable).",
    ),
]
Variants = Annotated[
    int | None,
    typer.Option(min=1, max=5, help="Ways to run the first plan, at most (default: few)."),
]
Winograd4 = Annotated[
    bool,
    typer.Option(
        "--winograd4/--no-winograd4", help="Allow Winograd F(4×4): faster, less accurate."
    ),
]
Bundle = Annotated[Path, typer.Argument(metavar="BUNDLE", help="Folder of a compiled model.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this module to `app`."""
    app.command(name="compile")(compile_command)
    app.command(name="run")(run_command)
    app.command(name="inspect")(inspect_command)


def compile_command(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="ONNX file or zoo name.")],
    out: Annotated[Path, typer.Option("-o", "--output", metavar="BUNDLE", help="Folder to write.")],
    name: Annotated[
        str | None, typer.Option(help="Name when served; the model's if left out.")
    ] = None,
    target: Annotated[
        str, typer.Option(help="native, or ARCH[:CPU] such as x86_64:haswell.")
    ] = "native",
    batch: Batch = "1",
    bucket: Buckets = None,
    shape: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=1x3x224x224", help="Shape of an input (repeatable)."),
    ] = None,
    cores: Annotated[str, typer.Option(metavar="N,…", help="Core counts to prepare for.")] = "1,2",
    variants: Variants = None,
    tune: Annotated[
        str,
        typer.Option(
            metavar="none|fast|full", help="Measure candidate schedules: at once, a minute, longer."
        ),
    ] = "none",
    tuning_logs: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where measured schedules are kept.")
    ] = None,
    winograd4: Winograd4 = True,
    json: Json = None,
) -> None:
    """Compile an ONNX model to a bundle."""
    shapes = parse.shapes(shape or ())
    extents = parse.buckets(bucket or ())
    counts = parse.numbers(cores, "--cores", least=1)
    sizes = AUTO if batch == "auto" else parse.numbers(batch, "--batch", least=1)

    from tenantdl import api, zoo
    from tenantdl.cli import render

    first = sizes[0] if len(sizes) == 1 else 1
    if not shapes and model in zoo.names():  # the sizes that it is usually served with
        shapes = {port: value.shape for port, value in zoo.sample_inputs(model, first).items()}
    begun = time.monotonic()
    with render.progress(f"compiling {model}") as progress:
        api.compile(
            zoo.resolve(model),
            out,
            name=name or Path(model).stem,
            target=target,
            batch=first if len(sizes) == 1 else sizes,
            shapes=shapes or None,
            buckets=extents,
            cores=counts,
            variants=variants,
            tune=tune,
            tuning_logs=tuning_logs,
            winograd4=winograd4,
            progress=progress,
        )
    _compiled(out, time.monotonic() - begun, json)


def _compiled(out: Path, seconds: float, json: Path | None) -> None:
    from tenantdl.bundle.load import read_manifest
    from tenantdl.cli import render, report

    manifest = read_manifest(out)
    if json:
        row = {"bundle": str(out), "name": manifest.name, "seconds": round(seconds, 3)}
        render.results(json, [row | {"summary": manifest.summary}])
    else:
        report.compiled(manifest, out)


def run_command(
    bundle: Bundle,
    source: Annotated[
        Path | None, typer.Option("--input", metavar="X.npz", help="Arrays named like the inputs.")
    ] = None,
    random: Annotated[
        int | None, typer.Option("--random", metavar="SEED", help="Random inputs instead.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", metavar="Y.npz", help="Where the outputs go.")
    ] = None,
    cores: Annotated[
        str | None, typer.Option(metavar="ID,…", help="Pin to these cores, a thread each.")
    ] = None,
    json: Json = None,
) -> None:
    """Run a bundle once on the inputs of an .npz file."""
    if (source is None) == (random is None):
        raise typer.BadParameter("give either --input X.npz or --random SEED")
    group = None if cores is None else parse.numbers(cores, "--cores")

    from tenantdl import api
    from tenantdl.cli import report, tensors
    from tenantdl.load.inputs import random_inputs

    model = api.load(bundle, cores=group)
    if source is not None:
        inputs = tensors.read_inputs(source, model.inputs)
    else:
        inputs = random_inputs(model.inputs, random or 0)
    outputs = model.run(inputs)
    if output is not None:
        tensors.write_outputs(output, outputs)
    if json:
        from tenantdl.cli import render

        render.results(json, report.output_rows(outputs), seed=random)
    else:
        report.outputs(outputs, output)


def inspect_command(
    bundle: Bundle,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE.png", help="Draw the frontier of its variants.")
    ] = None,
    json: Json = None,
) -> None:
    """Show what a bundle holds: tensors, kernels, segments, variants, where it can run."""
    from tenantdl.bundle.load import read_manifest
    from tenantdl.cli import render, report

    manifest = read_manifest(bundle)
    if json:
        import msgspec

        render.results(json, [msgspec.to_builtins(manifest)])
    else:
        report.inspected(manifest, bundle)
    if plot is not None:
        from tenantdl.bench.variants_plot import draw  # matplotlib is slow to import

        draw(manifest, plot)
        render.note(f"Frontier: {plot}")
