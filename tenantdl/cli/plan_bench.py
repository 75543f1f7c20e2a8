"""`tenantdl bench plan`: planners against the proven optimum, and against each other."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tenantdl.cli import parse, serve
from tenantdl.cli.options import JsonFile

if TYPE_CHECKING:
    from tenantdl.bench.plan import Summary


def register(app: typer.Typer) -> None:
    """Add the command of this module to `app`."""
    app.command(name="plan")(plan_command)
    app.command(name="plan-promise")(promise_command)
    app.command(name="plan-served")(served_command)
    app.command(name="plan-table")(table_command)


def plan_command(
    cases: Annotated[int, typer.Option(min=0, max=100_000, help="Applications to plan.")] = 100,
    first: Annotated[
        int, typer.Option(min=0, max=100_000, help="Number of the first case, to run in parts.")
    ] = 0,
    merging: Annotated[
        int | None,
        typer.Option(min=0, max=100_000, help="Sets of tenants to merge (default: a quarter)."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the workloads.")] = 1,
    planner: Annotated[
        str, typer.Option(metavar="NAME,…", help="Planners of applications; '' for all.")
    ] = "",
    exact: Annotated[
        bool, typer.Option("--exact/--no-exact", help="Solve every case exactly as well.")
    ] = True,
    json: JsonFile = None,
) -> None:
    """Compare planners on seeded workloads; costs are computed, times measured."""
    from tenantdl.bench import plan
    from tenantdl.bench.plan_merging import OURS as MERGING
    from tenantdl.cli import render
    from tenantdl.cli.bench import command_line
    from tenantdl.plan.planners import OURS, PLANNERS

    names = parse.words(planner, "--planner", known=tuple(PLANNERS)) or tuple(PLANNERS)
    with render.progress("bench plan") as progress:
        rows = plan.run(
            cases=cases,
            seed=seed,
            first=first,
            exact=exact,
            planners=names,
            merging_cases=cases // 4 if merging is None else merging,
            json=json,
            command=command_line(),
            progress=progress,
        )
    columns = ["Planner", ">planned", ">no plan", ">optimal", ">worst gap", ">median ms", ">p99 ms"]
    columns += [">cost, of ours", ">range"]
    for title, against, merges in (
        ("Applications (Harpagon)", OURS, False),
        ("Tenants sharing queues (HarmonyBatch)", MERGING, True),
    ):
        own = [row for row in rows if row["kind"].startswith("merging") == merges]
        if own:
            lines = [_line(summary) for summary in plan.summarize(own, against)]
            render.table(f"{title}: costs computed, times measured", columns, lines)
            render.line()
    _verdict(plan.summarize([r for r in rows if r["planner"] in (OURS, MERGING)]), render)


def promise_command(
    cases: Annotated[int, typer.Option(min=1, max=10_000, help="Applications to plan.")] = 80,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the workloads.")] = 1,
    share: Annotated[
        float, typer.Option(min=0.5, max=0.9999, help="Share in time that a margin is to hold.")
    ] = 0.99,
    json: JsonFile = None,
) -> None:
    """Simulate plans: do they keep their promise, and what margin does chance take?"""
    from tenantdl.bench import plan_promise
    from tenantdl.bench.envelope import write_results
    from tenantdl.cli import render
    from tenantdl.cli.bench import command_line

    with render.progress("bench plan-promise") as progress:
        rows = plan_promise.run(cases=cases, seed=seed, share=share, progress=progress)
    if json is not None:
        write_results(json, rows, command=command_line(), seed=seed)
    columns = ["Arrivals", ">modules", ">cases", ">in time", ">worst", ">promise kept"]
    columns += [">max / SLO", ">margin", ">cost"]
    render.table(
        "Share of requests within the target (simulated)",
        columns,
        [
            [
                row["arrivals"],
                row["modules"],
                row["cases"],
                f"{row['within']:.1%}",
                f"{row['worst']:.1%}",
                f"{row['kept']:.0%}",
                f"{row['max_over_slo']:.2f}",
                f"{row['margin']:.0%}",
                f"{row['cost_ratio']:.2f}",
            ]
            for row in plan_promise.summarize(rows)
        ],
    )


def served_command(
    workload: serve.Workload,
    share: Annotated[
        float, typer.Option(min=0.5, max=0.9999, help="Share in time that a margin is to hold.")
    ] = 0.99,
    duration: Annotated[
        float, typer.Option(min=1, max=3600, help="Seconds for each kind of arrivals.")
    ] = 20,
    machine: Annotated[
        str | None, typer.Option(metavar="NAME|FILE", help="Simulate the same on this machine.")
    ] = None,
    json: JsonFile = None,
) -> None:
    """Serve a workload as planned: does the daemon keep the plan's promise?"""
    from tenantdl.bench import plan_served
    from tenantdl.cli import render
    from tenantdl.cli.bench import command_line
    from tenantdl.load.workload import load_workload

    rows = plan_served.run(
        load_workload(workload),
        share=share,
        duration_s=duration,
        machine=machine,
        json=json,
        command=command_line(),
        report=render.note,
    )
    columns = ["Arrivals", "Tenant", ">rate/s", ">SLO ms", ">planned", ">served", ">p95 ms"]
    columns += [">p99 ms", ">margin", *([">simulated"] if machine else [])]
    render.table(
        "Share of requests within the target (planned: simulated; served: measured)",
        columns,
        [
            [
                row["arrivals"],
                row["tenant"],
                f"{row['rate']:.1f}",
                f"{row['slo_ms']:g}",
                f"{row['planned_within']:.1%}",
                f"{row['within']:.1%}",
                f"{row['p95_ms']:.1f}",
                f"{row['p99_ms']:.1f}",
                f"{row['margin']:.0%}",
                *([f"{row['simulated_attainment']:.1%}"] if machine else []),
            ]
            for row in rows
        ],
    )


def table_command(
    results: Annotated[
        list[Path], typer.Argument(metavar="RESULT.json", help="Of `bench latency --json`.")
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="TABLE.json", help="File to write.")
    ],
) -> None:
    """Make a profile table to plan with out of measured latencies."""
    from tenantdl.bench.plan_table import write
    from tenantdl.cli import render

    profiles = write(results, output)
    entries = sum(len(profile.entries) for profile in profiles)
    render.line(f"{output}: {entries} entries of {len(profiles)} models")


def _line(summary: Summary) -> list[str]:
    return [
        summary.planner,
        str(summary.planned),
        str(summary.failed),
        "–" if summary.optimal is None else f"{summary.optimal:.1%}",
        "–" if summary.gap_max is None else f"{summary.gap_max:.2%}",
        f"{summary.millis_median:.2f}",
        f"{summary.millis_p99:.2f}",
        f"{summary.ratio_mean:.3f}",
        f"{summary.ratio_min:.3f}–{summary.ratio_max:.3f}",
    ]


def _verdict(summaries: list[Summary], render: Any) -> None:
    """A plan below the optimum would mean that one of the two is wrong."""
    from tenantdl.bench.plan import SAME

    for summary in summaries:
        if summary.below is not None and summary.below < -SAME:
            render.note(f"{summary.planner}: {-summary.below:.2e} below the optimum: a defect")
            raise typer.Exit(1)
