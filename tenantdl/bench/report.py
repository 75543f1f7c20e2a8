"""The HTML report of a QoS run: one self-contained page with a table and three plots."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tenantdl import __version__
from tenantdl.bench import report_plots as plots
from tenantdl.documents import write_document
from tenantdl.machine import this_machine
from tenantdl.units import SECOND

if TYPE_CHECKING:
    from tenantdl.bench.qos import Result

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1f2430; max-width: 60rem;
       margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; margin-bottom: 0; } h2 { font-size: 1.25rem; margin-top: 2.2rem; }
h3 { font-size: 1.05rem; margin: 1.6rem 0 0; }
p.note, footer { color: #5b6272; } code { background: #f1f2f5; padding: .1rem .3rem; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .6rem; text-align: right; border-bottom: 1px solid #e3e5ea; }
th:first-child, td:first-child { text-align: left; } tr:last-child td { font-weight: 600; }
th { color: #5b6272; font-weight: 500; } td.miss { color: #b3261e; font-weight: 600; }
svg { width: 100%; height: auto; }
"""
_GOAL = 0.95


def write_report(path: Path, result: Result) -> None:
    """Write the page, aside and then renamed. Raises UserError when that fails."""
    write_document(path, page(result).encode())


def page(result: Result) -> str:
    """The page as text."""
    workload, load, rows = result.workload, result.workload.load, result.rows
    name = html.escape(workload.name)
    machine = this_machine()
    cores = sorted({core for group in result.timeline.lanes.values() for core in group})
    lead = (
        f"{rows[-1]['rate']:g} requests a second, {html.escape(load.arrivals)} arrivals, "
        f"{load.duration_s:g} s, policy <b>{html.escape(workload.scheduler.policy)}</b>, "
        f"{len(result.timeline.lanes)} lanes on cores {', '.join(map(str, cores))} of "
        f"{html.escape(machine.model)}. Measured on this machine."
    )
    return "\n".join(
        [
            "<!doctype html>",
            f'<html lang="en"><head><meta charset="utf-8"><title>QoS of {name}</title>',
            f"<style>{STYLE}</style></head><body>",
            f"<h1>Quality of service: {name}</h1>",
            f"<p>{lead}</p>",
            _table(rows),
            "<h2>Who got what was promised</h2>",
            f"<p class=note>Share of all scheduled requests that were answered in time; the line "
            f"is at {_GOAL:.0%}.</p>",
            plots.attainment(rows, _GOAL),
            "<h2>Latency against the deadline</h2>",
            "<p class=note>From scheduled arrival to answer, in multiples of each tenant's QoS "
            "target: what is right of the line was late.</p>",
            plots.latency_cdf(result),
            "<h2>Blocks on cores</h2>",
            f"<p class=note>{_activity(result)}</p>",
            plots.timeline(result.timeline, [t.name for t in workload.tenant]),
            f"<footer><p>tenantdl {__version__}, seed {load.seed}. Again: "
            f"<code>{html.escape(result.command)}</code></p></footer>",
            "</body></html>",
        ]
    )


def _activity(result: Result) -> str:
    timeline, duration = result.timeline, result.workload.load.duration_s
    busy = ", ".join(
        f"lane {lane} {ns / (duration * SECOND):.0%}" for lane, ns in timeline.busy.items()
    )
    return (
        f"{timeline.total} blocks, {timeline.preemptions} preemptions; busy: {busy}. Shown: the "
        f"quarter of a second with the most preemptions (marked by a triangle)."
    )


def _table(rows: Sequence[dict[str, Any]]) -> str:
    heads = ["tenant", "QoS ms", "rate/s", "requests", "in time", "p50 ms", "p95 ms", "p99 ms"]
    heads += ["answered/s", "not answered"]
    lines = [_tr("th", ((head, "") for head in heads))]
    for row in rows:
        share = row["attainment"]
        missed = share is not None and share < _GOAL
        refused = ", ".join(f"{count} × {what}" for what, count in row["refused"].items())
        cells = [
            (row["tenant"], ""),
            (_number(row.get("qos_ms"), "g"), ""),
            (_number(row["rate"], ".1f"), ""),
            (str(row["requests"]), ""),
            ("–" if share is None else f"{share:.1%}", "miss" if missed else ""),
            *((_number(row[key], ".1f"), "") for key in ("p50_ms", "p95_ms", "p99_ms")),
            (_number(row["throughput"], ".1f"), ""),
            (refused or "0", ""),
        ]
        lines.append(_tr("td", cells))
    return "<table>" + "\n".join(lines) + "</table>"


def _tr(tag: str, cells: Iterable[tuple[str, str]]) -> str:
    marked = (
        f"<{tag}{f' class={kind}' if kind else ''}>{html.escape(text)}</{tag}>"
        for text, kind in cells
    )
    return f"<tr>{''.join(marked)}</tr>"


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)
