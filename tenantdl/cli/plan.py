"""`tenantdl plan`: what a workload needs, before it is bought."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tenantdl.cli import serve
from tenantdl.errors import UserError

if TYPE_CHECKING:
    from tenantdl.plan.workload import WhatIf

DOES_NOT_FIT = 1
_FACTOR = re.compile(r"^(\d+(?:\.\d+)?)x$")
FACTOR_MAX, CORES_MAX = 1e6, 65536


def register(app: typer.Typer) -> None:
    """Add the command of this module to `app`."""
    app.command(name="plan")(plan_command)


def plan_command(
    workload: serve.Workload,
    what_if: Annotated[
        list[str] | None,
        typer.Option("--what-if", metavar="cores=16|rate=2x|slo=0.5x", help="Assume (repeatable)."),
    ] = None,
    exact: Annotated[
        bool, typer.Option("--exact", help="Prove the least cost as well (small workloads).")
    ] = False,
    hold: Annotated[
        float | None,
        typer.Option(
            min=0.5, max=0.9999, help="Plan for more, until this share of Poisson load is in time."
        ),
    ] = None,
    json: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write the plan as JSON.")
    ] = None,
    gantt: Annotated[
        Path | None,
        typer.Option("--gantt", metavar="FILE.png", help="Draw one period (png, svg, pdf)."),
    ] = None,
) -> None:
    """Plan a workload: shared queues, slots, batches, cores, and what to expect.

    Costs are computed from measured profiles; expected latencies are simulated. Exits with 1 when
    the machine is too small.
    """
    assumed = parse_what_if(what_if or [])

    from tenantdl.bench.plan_gantt import draw
    from tenantdl.cli import render
    from tenantdl.load.workload import load_workload
    from tenantdl.plan.workload import describe, plan_workload

    planned = plan_workload(load_workload(workload), assumed, exact=exact, share=hold)
    described = describe(planned)
    if json is not None:
        _write(json, described)
    if gantt is not None:
        draw(planned, gantt)
    _show(described, render)
    if not described["fits"]:
        raise typer.Exit(DOES_NOT_FIT)


def parse_what_if(texts: list[str]) -> WhatIf:
    """`cores=16`, `rate=2x`, `slo=0.5x`; several in one, separated by blanks or commas. Raises
    UserError for anything else."""
    from tenantdl.plan.workload import WhatIf

    found: dict[str, Any] = {}
    for text in texts:
        for part in re.split(r"[\s,]+", text.strip()):
            key, _, value = part.partition("=")
            factor = _FACTOR.match(value)
            if key in found:
                raise UserError(f"{key} is given twice", where="--what-if")
            if key == "cores" and value.isascii() and value.isdigit() and len(value) < 6:
                found[key] = int(value)
            elif key in ("rate", "slo") and factor:
                found[key] = float(factor.group(1))
            else:
                raise UserError(
                    f"{part!r} is none of cores=16, rate=2x, slo=0.5x", where="--what-if"
                )
            if not 0 < found[key] <= (CORES_MAX if key == "cores" else FACTOR_MAX):
                raise UserError(f"{part!r} is out of range", where="--what-if")
    return WhatIf(**found)


def _write(path: Path, described: dict[str, Any]) -> None:
    from tenantdl.documents import indented_json, write_document

    write_document(path, indented_json(described))


def _show(described: dict[str, Any], render: Any) -> None:
    columns = ["Queue", "Module", ">rate/s", "Slots × batch", ">latency ms", ">of ms", ">cores"]
    rows = []
    for plan in described["plans"]:
        for module in plan["modules"]:
            slots = "; ".join(_slot(slot) for slot in module["slots"])
            rows.append(
                [
                    plan["name"],
                    module["module"],
                    f"{module['rate']:.4g}",
                    slots,
                    f"{module['latency_ms']:.1f}",
                    f"{module['budget_ms']:.1f}",
                    f"{module['cost_cores']:.2f}",
                ]
            )
    render.table(f"{described['workload']}: {described['verdict']} (computed)", columns, rows)
    render.line()
    columns = ["Queue", ">SLO ms", ">in time", ">p95 ms", ">p99 ms", ">margin", ">cores"]
    rows = []
    for plan in described["plans"]:
        expected = plan["expected_poisson_simulated"]
        cores = f"{plan['cost_cores']:.2f}"
        if plan["proven_bound_cores"] is not None:
            cores += f" (proven: no less than {plan['proven_bound_cores']:.2f})"
        times = [f"{expected[key]:.1f}" for key in ("p95_ms", "p99_ms")]
        share = f"{expected['within_slo']:.1%}"
        rows.append(
            [plan["name"], f"{plan['slo_ms']:g}", share, *times, f"{plan['margin']:.0%}", cores]
        )
    render.table("Expected with Poisson arrivals (simulated)", columns, rows)
    for plan in described["plans"]:
        for module in plan["modules"]:
            for tenant, wait in module["tenant_timeouts_ms"].items():
                render.line(f"{tenant}: a batch waits at most {wait:.1f} ms for its requests")
            for reason in module["why_not_cheaper"]:
                render.line(f"{plan['name']} · {module['module']}: not cheaper: {reason}")


def _slot(slot: dict[str, Any]) -> str:
    machines = slot["full"] + slot["fraction"]
    return f"{machines:.3g} × {slot['slot']} × batch {slot['batch']}"
