"""The frontier of a bundle's variants as a plot: for each segment, what its variants cost and take.

Three panels over the time alone on one core, all relative to the first variant, a dot a segment
and variant, a large mark for the whole plan: time on the most cores, time beside a neighbour that
writes memory, and bytes from beyond a core's own caches.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tenantdl.bench.report_plots import COLOURS
from tenantdl.bundle.manifest import Manifest, Variant
from tenantdl.errors import UserError

_MARKS = "osD^v"


def draw(manifest: Manifest, file: Path, plan: int = 0) -> None:
    """Write the plot of a plan's variants. Raises UserError when there are none, or no place."""
    variants = manifest.plans[plan].variants
    if len(variants) < 2:
        raise UserError("the bundle has one variant only: compile with --variants 5 for more")
    figure = Figure(figsize=(11, 3.8), layout="constrained")
    first = variants[0]
    most = first.cores[-1]
    panels = {
        f"time on {most} cores": [v.cost_ns[-1] for v in variants],
        "time beside a writing neighbour": [v.pressed_ns or v.cost_ns[0] for v in variants],
        "bytes from beyond the core's caches": [v.traffic_bytes for v in variants],
    }
    for axes, (label, values) in zip(figure.subplots(1, 3), panels.items(), strict=True):
        for number, (variant, own) in enumerate(zip(variants, values, strict=True)):
            _dots(axes, number, variant, first, own, values[0])
        axes.axhline(1, color="#cccccc", linewidth=0.8, zorder=0)
        axes.axvline(1, color="#cccccc", linewidth=0.8, zorder=0)
        axes.set_xlabel("time on one core, of the first variant's")
        axes.set_ylabel(label)
        axes.spines[["top", "right"]].set_visible(False)
    names = [variant.goal for variant in variants]
    handles = [
        figure.axes[0].plot([], [], _MARKS[n], color=COLOURS[n % len(COLOURS)])[0]
        for n in range(len(names))
    ]
    figure.legend(handles, names, frameon=False, ncols=5, loc="outside lower center", fontsize=9)
    figure.suptitle(f"{manifest.name}: variants, measured where it was compiled", fontsize=10)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(file, dpi=150)
    except (OSError, ValueError) as error:
        raise UserError(f"cannot be written: {error}", where=str(file)) from error


def _dots(
    axes: Axes,
    number: int,
    variant: Variant,
    first: Variant,
    own: tuple[int, ...],
    base: tuple[int, ...],
) -> None:
    alone, reference = np.array(variant.cost_ns[0], float), np.array(first.cost_ns[0], float)
    values, bases = np.array(own, float), np.array(base, float)
    colour = COLOURS[number % len(COLOURS)]
    axes.plot(alone / reference, values / bases, ".", color=colour, alpha=0.35, markersize=4)
    axes.plot(
        alone.sum() / reference.sum(),
        values.sum() / bases.sum(),
        _MARKS[number % len(_MARKS)],
        color=colour,
        markersize=8,
    )
