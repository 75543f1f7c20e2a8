"""Plots as inline SVG. Colours are Okabe and Ito's, which most colour-blind readers tell apart."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from tenantdl.bench.qos_timeline import WINDOW, Timeline
from tenantdl.units import MS

if TYPE_CHECKING:
    from tenantdl.bench.qos import Result

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#8C8C3C", "#555555")
LINE = "#b3261e"


def attainment(rows: Sequence[dict[str, Any]], goal: float) -> str:
    """Bars of the share in time, one a tenant and one for all."""
    figure, axes = new_figure(height=0.5 + 0.38 * len(rows))
    for place, row in enumerate(rows):
        share = row["attainment"] or 0.0
        colour = COLOURS[place % len(COLOURS)] if place < len(rows) - 1 else "#3b4252"
        axes.barh(place, share, color=colour, height=0.62)
        inside = share > 0.15
        # At the root of the bar: at its end the line of the goal would cross it.
        axes.text(
            0.01 if inside else share + 0.01,
            place,
            f"{share:.1%}",
            va="center",
            color="white" if inside else "black",
        )
    axes.axvline(goal, color=LINE, linewidth=1.2)
    axes.set_yticks(range(len(rows)), [row["tenant"] for row in rows])
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    return svg(figure)


def latency_cdf(result: Result) -> str:
    """Distribution of latency over QoS target, one curve a tenant."""
    figure, axes = new_figure(height=3.2)
    for number, tenant in enumerate(result.workload.tenant):
        relative = result.latencies_ms[tenant.name] / tenant.qos_ms
        if len(relative):
            share = np.arange(1, len(relative) + 1) / len(relative)
            colour = COLOURS[number % len(COLOURS)]
            label = f"{tenant.name} ({tenant.qos_ms:g} ms)"
            axes.step(relative, share, where="post", color=colour, label=label, linewidth=1.8)
    axes.axvline(1.0, color=LINE, linewidth=1.2)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}×")
    axes.set_xlabel("latency / QoS target")
    axes.set_ylabel("share of answers")
    axes.set_ylim(0, 1.02)
    axes.grid(alpha=0.25)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, loc="upper left")
    return svg(figure)


def timeline(data: Timeline, tenants: Sequence[str]) -> str:
    """Blocks as bars on their lanes, coloured by tenant; preemptions as triangles."""
    lanes = list(data.lanes)
    figure, axes = new_figure(height=1.1 + 0.55 * len(lanes))
    for number, tenant in enumerate(tenants):
        for place, lane in enumerate(lanes):
            own = [b for b in data.blocks if b.tenant == tenant and b.lane == lane]
            spans = [(b.begin / MS, (b.end - b.begin) / MS) for b in own]
            colour = COLOURS[number % len(COLOURS)]
            axes.broken_barh(
                spans, (place - 0.32, 0.64), facecolors=colour, edgecolors="white", linewidth=0.3
            )
            cuts = [b.end / MS for b in own if b.preempted]
            axes.plot(cuts, [place - 0.42] * len(cuts), "v", color=LINE, markersize=3.5)
        axes.plot([], [], "s", color=COLOURS[number % len(COLOURS)], label=tenant)
    cores = [",".join(map(str, data.lanes[lane])) for lane in lanes]
    axes.set_yticks(range(len(lanes)), [f"core {names}" for names in cores])
    axes.set_ylim(len(lanes) - 0.4, -0.65)
    axes.set_xlim(0, WINDOW / MS)
    axes.set_xlabel("ms")
    axes.legend(
        frameon=False, ncols=min(len(tenants), 6), loc="lower center", bbox_to_anchor=(0.5, 1.0)
    )
    return svg(figure)


def new_figure(height: float) -> tuple[Figure, Any]:
    """A wide figure of that height in inches, and its axes."""
    figure = Figure(figsize=(9, height), layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def svg(figure: Figure) -> str:
    """The figure's <svg> element, the same bytes for the same figure."""
    text = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "tenantdl"}):
        figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()[text.getvalue().index("<svg") :]
