"""`tenantdl profile`: measure this machine for the simulator, and bundles for the predictor."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from tenantdl.cli import parse
from tenantdl.cli.options import Json
from tenantdl.errors import UserError


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command(name="profile")(profile_command)


def profile_command(
    bundles: Annotated[
        list[Path] | None, typer.Argument(metavar="BUNDLE…", help="What to measure.")
    ] = None,
    machine: Annotated[bool, typer.Option("--machine", help="Measure the machine.")] = False,
    corun: Annotated[
        bool, typer.Option("--corun", help="Also beside each other and beside stressors.")
    ] = False,
    seconds: Annotated[
        float, typer.Option(min=1, max=86_400, help="For --corun, all together.")
    ] = 120.0,
    batch: Annotated[
        str | None, typer.Option(metavar="N,…", help="Only plans of these batches.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", metavar="FILE", help="out/profile.sqlite or out/this-machine.toml."
        ),
    ] = None,
    tables: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.json", help="Write what was learned, for [scheduler] interference."
        ),
    ] = None,
    served: Annotated[
        Path | None,
        typer.Option(
            metavar="WORKLOAD.toml", help="For --machine, also while it serves this workload."
        ),
    ] = None,
    rounds: Annotated[
        int, typer.Option(min=5, max=10_000, help="For --machine, launches that are timed.")
    ] = 300,
    json: Json = None,
) -> None:
    """Measure bundles: alone, on every number of cores, and (--corun) beside each other.

    What is in the file already is not measured again. With --machine: what lanes cost here, as a
    file for `tenantdl simulate --machine FILE`.
    """
    if machine == bool(bundles):
        raise UserError("nothing to measure: give bundles, or --machine")
    if bundles:
        batches = parse.numbers(batch, "--batch", least=1) if batch else ()
        profile = output or Path("out/profile.sqlite")
        _bundles(bundles, batches, seconds if corun else 0.0, profile, json)
        if tables is not None:
            from tenantdl.cli import render
            from tenantdl.profile.tables import export_tables

            export_tables(profile, tables)
            render.line(f"Tables: {tables}")
    else:
        _machine(rounds, served, output or Path("out/this-machine.toml"), json)


def _machine(rounds: int, served: Path | None, output: Path, json: Path | None) -> None:
    import msgspec

    from tenantdl.bench import machine as bench
    from tenantdl.bench.groups import measure_groups
    from tenantdl.cli import render

    with render.working("measuring this machine"):
        groups = measure_groups(rounds)
        measured = bench.measure(rounds, groups)
        if served is not None:
            from tenantdl.bench.in_service import calibrated
            from tenantdl.load.workload import load_workload

            measured = calibrated(measured, load_workload(served))
    bench.write(measured, output)
    if json:
        lists = {"groups": [group._asdict() for group in groups]}
        render.results(json, [msgspec.to_builtins(measured) | lists])
        return
    columns = ["Cores", ">GB/s", ">hand-over µs", ">block end µs"]
    columns += [">a request µs", ">p95 µs", ">a MB µs"]
    row = [measured.cores, measured.bandwidth_gbs, measured.handover_us, measured.boundary_us]
    row += [measured.request_us, measured.request_p95_us, measured.request_mb_us]
    render.table("This machine, measured", columns, [row])
    columns = ["Cores of a group", ">a loop more µs", ">waking helpers µs"]
    rows = [[g.cores, f"{g.loop_us:.1f}", f"{g.wake_us:.1f}"] for g in groups]
    render.table("", columns, rows)
    if measured.slower:
        rows = [[name, f"{factor:.2f}"] for name, factor in measured.slower.items()]
        render.table("", ["Served", ">times what it takes alone"], rows)
    render.line(f"Machine: {output}")


def _bundles(
    bundles: list[Path],
    batches: tuple[int, ...],
    seconds: float,
    output: Path,
    json: Path | None,
) -> None:
    import msgspec

    from tenantdl.cli import render
    from tenantdl.profile.measure import measure

    profile = measure(bundles, batches, seconds, output, render.note)
    if json:
        kinds: dict[str, list[Any]] = {"alone": [*profile.solos], "beside": [*profile.corun]}
        kinds["after"] = [*profile.before]
        render.results(
            json,
            [{"kind": k} | msgspec.to_builtins(one) for k, each in kinds.items() for one in each],
        )
        return
    columns = ["Alone", ">runs", ">p5 ms", ">p50 ms", ">p95 ms", ">p99 ms", ">block end µs"]
    rows = [
        [solo.subject, solo.runs]
        + [f"{solo.quantiles_ns[q] / 1e6:.3f}" for q in ("5", "50", "95", "99")]
        + [f"{solo.boundary_ns / 1e3:.1f}"]
        for solo in profile.solos
    ]
    render.table("Measured on this machine", columns, rows)
    for title, found in (("Beside", profile.corun), ("After", profile.before)):
        table = [
            [m.victim, m.other, m.turns, f"{m.slowdown:.3f}", f"{100 * m.error:.1f} %"]
            for m in sorted(found, key=lambda m: -m.slowdown)
        ]
        if table:
            render.line()
            columns = ["Victim", title, ">turns", ">slowdown", ">error"]
            render.table("", columns, table[:40])
            if len(table) > 40:
                render.line(f"{len(table) - 40} smaller ones are in the file")
    render.line(f"Profile: {output}")
