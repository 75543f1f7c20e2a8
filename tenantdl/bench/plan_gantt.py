"""A picture of one period of a plan: which machine runs which batch when (simulated)."""

from __future__ import annotations

import math
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from tenantdl.bench.report_plots import COLOURS
from tenantdl.errors import UserError
from tenantdl.plan.module import ModulePlan
from tenantdl.plan.simulate import Run, constant, dispatch, period
from tenantdl.plan.workload import Planned, WorkloadPlan

_PERIODS_BEFORE = 3  # left out: machines start empty
_MACHINES_MAX = 60


def draw(planned: WorkloadPlan, path: Path) -> None:
    """Write the picture, in the format that the file's name says. Requests come at equal gaps; the
    numbers in bars are batch sizes, faint bars are fractions of machines. Raises UserError when it
    cannot be written."""
    rows: list[tuple[str, str, bool, list[Run]]] = []
    spans = [_period(own) for each in planned.planned for own in each.plan.modules]
    span = max(spans, default=1.0)
    for number, each in enumerate(planned.planned):
        rows += _rows(each, span, COLOURS[number % len(COLOURS)])
    rows = rows[:_MACHINES_MAX]
    figure = Figure(figsize=(11, 1.2 + 0.34 * len(rows)), layout="constrained")
    axes = figure.subplots()
    begin = _PERIODS_BEFORE * span
    for place, (_, colour, whole, runs) in enumerate(rows):
        bars = [((run.begin - begin) * 1000, (run.end - run.begin) * 1000) for run in runs]
        axes.broken_barh(
            bars,
            (place - 0.36, 0.72),
            facecolors=colour,
            edgecolors="white",
            linewidth=0.6,
            alpha=1.0 if whole else 0.5,
        )
        for run, (left, width) in zip(runs, bars, strict=True):
            middle = left + width / 2
            if width > 0.02 * span * 1000 and 0 < middle < span * 1000:
                axes.text(middle, place, str(run.size), ha="center", va="center", fontsize=7)
    axes.set_yticks(range(len(rows)), [name for name, *_ in rows], fontsize=8)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(0, span * 1000)
    axes.set_xlabel("ms (simulated, equal gaps; numbers: requests in the batch)")
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(f"{planned.name}: {planned.verdict()}", loc="left", fontsize=10)
    try:
        with matplotlib.rc_context({"svg.hashsalt": "tenantdl"}):
            figure.savefig(path)
    except (OSError, ValueError) as error:
        raise UserError(f"cannot be written: {error}", where=str(path)) from error


def _period(plan: ModulePlan) -> float:
    """A span in which every machine runs a few batches."""
    return 2 * max(t.configuration.batch * math.ceil(t.machines) / t.rate for t in plan.tiers)


def _rows(planned: Planned, span: float, colour: str) -> list[tuple[str, str, bool, list[Run]]]:
    rows = []
    for module, own in zip(planned.application.modules, planned.plan.modules, strict=True):
        count = int(np.ceil(module.rate * span * (_PERIODS_BEFORE + 1))) + 1
        times = constant(module.rate, count, np.random.default_rng(0))
        _, runs = dispatch(own, times, own.latency_s)
        begin = _PERIODS_BEFORE * span
        shown = period(runs, begin, begin + span)
        for number, tier in enumerate(own.tiers):
            for machine in range(tier.full + (tier.fraction > 0)):
                name = f"{planned.name} · " if planned.name != module.name else ""
                name += f"{module.name} · {tier.configuration.hardware} #{machine + 1}"
                mine = [run for run in shown if (run.tier, run.machine) == (number, machine)]
                rows.append((name, colour, machine < tier.full, mine))
    return rows
