"""The HTML page of a comparison: one self-contained file with tables and plots, for readers who
were not there."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tenantdl import __version__
from tenantdl.bench.report import STYLE
from tenantdl.bench.serving import page_plots as plots
from tenantdl.documents import write_document
from tenantdl.machine import this_machine

Row = dict[str, Any]

_STYLE = """
table.targets tr td { font-weight: 400; } table.targets tr.ours td { font-weight: 600; }
"""


def write_page(path: Path, rows: Sequence[Row], command: str) -> None:
    """Write the page, aside and then renamed. Raises UserError when that fails."""
    write_document(path, page(rows, command).encode())


def page(rows: Sequence[Row], command: str) -> str:
    """The page of all workloads in `rows`, as text."""
    workloads = list(dict.fromkeys(row["workload"] for row in rows))
    machine = this_machine()
    cores = ", ".join(map(str, machine.cores))
    body = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8"><title>Serving under load</title>',
        f"<style>{STYLE}{_STYLE}</style></head><body>",
        "<h1>Serving under load</h1>",
        f"<p>{html.escape(machine.model)}, cores {cores}. Every target served the same models to "
        "the same tenants on the same cores, driven over HTTP by the same client with the same "
        "arrival times. A rate <i>holds</i> if every tenant had at least that share of its "
        "requests answered within its target, counted from when each was due; refused, dropped "
        "and unanswered requests count as missed. Figures are measured, except those of the "
        "target <i>sim</i>, which are simulated.</p>",
    ]
    for name in workloads:
        own = [row for row in rows if row["workload"] == name]
        body += _workload(name, own)
    body.append(
        f"<footer><p>tenantdl {__version__}. Again: <code>{html.escape(command)}</code></p>"
        "</footer></body></html>"
    )
    return "\n".join(body)


def _workload(name: str, rows: Sequence[Row]) -> list[str]:
    first = rows[0]
    tenants = ", ".join(
        f"{html.escape(tenant)} {figures['qos_ms']:g} ms"
        for tenant, figures in first["probes"][0]["tenants"].items()
    )
    runs = max(row["run"] for row in rows)
    parts = [
        f"<h2>Workload {html.escape(name)}</h2>",
        f"<p class=note>{html.escape(first['arrivals'])} arrivals, {first['duration_s']:g} s a "
        f"rate, {runs} run(s) in turns, rates {100 * (first['step'] - 1):.0f} % apart. Targets of "
        f"the tenants: {tenants}.</p>",
        _table(rows),
        "<h3>Highest rate that holds</h3>",
        "<p class=note>Median of the runs; the line is their range.</p>",
        plots.rates(rows),
        "<h3>QoS against rate</h3>",
        "<p class=note>Share in time of the tenant that fared worst; a point a rate that was "
        "driven.</p>",
        plots.shares(rows),
        "<h3>Latency against rate</h3>",
        "<p class=note>95th percentile over the tenant's own target, of the tenant that fared "
        "worst: above 1 is late. Rates that were called off early are left out.</p>",
        plots.latencies(rows),
    ]
    timelines = [row for row in rows if row.get("timeline")]
    if timelines:
        parts += [
            "<h3>Blocks on cores</h3>",
            "<p class=note>Our daemon, run 1: the quarter of a second with the most preemptions "
            "(triangles: another request took the core at the end of a block).</p>",
            plots.blocks(timelines[0]["timeline"]),
        ]
    return parts


def _table(rows: Sequence[Row]) -> str:
    heads = ["target", "at 95 %", "at 99 %", "ratio", "p50 ms", "p95 ms", "p99 ms", "p99.9 ms"]
    heads += ["goodput/s", "cores", "client cores", "conflicts"]
    lines = ["<tr>" + "".join(f"<th>{head}</th>" for head in heads) + "</tr>"]
    targets = list(dict.fromkeys(row["target"] for row in rows))
    ours = _median(row["qps_at_95"] for row in rows if row["target"] == "daemon")
    for target in targets:
        own = [row for row in rows if row["target"] == target]
        mine = _median(row["qps_at_95"] for row in own)
        ratio = f"{ours / mine:.2f}×" if ours and mine and target != "daemon" else "–"
        cells = [html.escape(target), _rate(own, "qps_at_95"), _rate(own, "qps_at_99"), ratio]
        cells += [
            _number(_median(row[key] for row in own), ".1f")
            for key in ("p50_ms", "p95_ms", "p99_ms", "p999_ms", "goodput")
        ]
        cells += [
            _number(_median(row[key] for row in own), ".2f")
            for key in ("core_usage", "client_core_usage")
        ]
        cells.append(_number(_median(row.get("conflict_rate") for row in own), ".1%"))
        kind = " class=ours" if target == "daemon" else ""
        lines.append(f"<tr{kind}>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    note = (
        "<p class=note>Requests a second, median (range) of the runs; ratio: the daemon's rate "
        "over the target's at 95 %. Latencies, goodput and cores in use are those at the highest "
        "rate that held at 95 %. Conflicts: launches with fewer cores than they wanted.</p>"
    )
    return "<table class=targets>" + "\n".join(lines) + "</table>" + note


def _rate(rows: Sequence[Row], key: str) -> str:
    rates = [row[key] for row in rows if row[key] is not None]
    if not rates:
        return "–"
    spread = f" ({min(rates):.1f}–{max(rates):.1f})" if len(rates) > 1 else ""
    return f"{np.median(rates):.1f}{spread}"


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.median(known)) if known else None


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)
