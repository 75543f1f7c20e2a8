"""Plots of a comparison as inline SVG: a colour and a mark for every target."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tenantdl.bench.report_plots import COLOURS, LINE, new_figure, svg
from tenantdl.units import MS

Row = dict[str, Any]
_MARKS = "osD^vPX*"


def rates(rows: Sequence[Row]) -> str:
    """Bars of the rates at 95 % and 99 %, with the range of the runs."""
    targets = _targets(rows)
    figure, axes = new_figure(height=0.9 + 0.55 * len(targets))
    for place, target in enumerate(targets):
        for offset, key, alpha in ((-0.19, "qps_at_95", 1.0), (0.19, "qps_at_99", 0.5)):
            own = [r[key] for r in rows if r["target"] == target and r[key] is not None]
            if not own:
                continue
            middle, at = float(np.median(own)), place + offset
            axes.barh(at, middle, height=0.36, color=_colour(place), alpha=alpha)
            axes.plot([min(own), max(own)], [at, at], color="black", linewidth=1.2)
            share = "95 %" if key == "qps_at_95" else "99 %"
            axes.text(max(own), at, f" {middle:.1f}/s at {share}", va="center", fontsize=9)
    axes.set_yticks(range(len(targets)), targets)
    axes.invert_yaxis()
    axes.set_xlim(0, axes.get_xlim()[1] * 1.18)
    axes.set_xlabel("requests a second, all tenants")
    return svg(figure)


def shares(rows: Sequence[Row]) -> str:
    """Share in time of the worst-off tenant over the rate."""
    figure, axes = new_figure(height=3.6)
    _curves(axes, rows, lambda probe: probe["worst"])
    for goal in (0.95, 0.99):
        axes.axhline(goal, color=LINE, linewidth=1.0)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.set_ylabel("share in time")
    axes.set_ylim(0, 1.03)
    return svg(figure)


def latencies(rows: Sequence[Row]) -> str:
    """The worst-off tenant's 95th percentile over its target, over the rate."""
    figure, axes = new_figure(height=3.6)
    _curves(axes, rows, _relative)
    axes.axhline(1.0, color=LINE, linewidth=1.0)
    axes.set_yscale("log")
    for tick in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
        tick(lambda value, _: f"{value:g}×")
    axes.set_ylabel("p95 latency / target")
    return svg(figure)


def blocks(timeline: Sequence[Row]) -> str:
    """Blocks as bars on their lanes, coloured by tenant."""
    lanes = sorted({block["lane"] for block in timeline})
    tenants = list(dict.fromkeys(block["tenant"] for block in timeline))
    figure, axes = new_figure(height=1.2 + 0.55 * len(lanes))
    for number, tenant in enumerate(tenants):
        for place, lane in enumerate(lanes):
            own = [b for b in timeline if b["tenant"] == tenant and b["lane"] == lane]
            spans = [(b["begin"] / MS, (b["end"] - b["begin"]) / MS) for b in own]
            axes.broken_barh(
                spans,
                (place - 0.32, 0.64),
                facecolors=_colour(number),
                edgecolors="white",
                linewidth=0.3,
            )
            cuts = [b["end"] / MS for b in own if b["preempted"]]
            axes.plot(cuts, [place - 0.42] * len(cuts), "v", color=LINE, markersize=3.5)
        axes.plot([], [], "s", color=_colour(number), label=tenant)
    axes.set_yticks(range(len(lanes)), [f"lane {lane}" for lane in lanes])
    axes.set_ylim(len(lanes) - 0.4, -0.65)
    axes.set_xlabel("ms")
    axes.legend(
        frameon=False, ncols=min(len(tenants), 5), loc="lower center", bbox_to_anchor=(0.5, 1.0)
    )
    return svg(figure)


def _curves(axes: Any, rows: Sequence[Row], value: Callable[[Row], float | None]) -> None:
    """A curve for every target: medians where several runs drove one rate, points for all."""
    for place, target in enumerate(_targets(rows)):
        points: dict[float, list[float]] = {}
        for row in rows:
            if row["target"] == target:
                for probe in row["probes"]:
                    y = value(probe)
                    if y is not None:
                        points.setdefault(probe["rate"], []).append(y)
        known = sorted(points)
        colour, mark = _colour(place), _MARKS[place % len(_MARKS)]
        middles = [float(np.median(points[rate])) for rate in known]
        axes.plot(known, middles, color=colour, marker=mark, label=target, linewidth=1.6)
        for rate in known:
            axes.plot([rate] * len(points[rate]), points[rate], mark, color=colour, alpha=0.35)
    axes.set_xlabel("requests a second, all tenants")
    axes.grid(alpha=0.25)
    axes.legend(frameon=False)


def _relative(probe: Row) -> float | None:
    if probe["stopped"]:
        return None
    known = [t["p95_ms"] / t["qos_ms"] for t in probe["tenants"].values() if "p95_ms" in t]
    return max(known, default=None)


def _targets(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(row["target"] for row in rows))


def _colour(place: int) -> str:
    return COLOURS[place % len(COLOURS)]
