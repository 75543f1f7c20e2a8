"""Plots of `bench batching`: finish rate and goodput against the load, a line a policy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from tenantdl.bench.report_plots import COLOURS
from tenantdl.errors import UserError

_MARKS = "os^vD*PX"


def draw(rows: Sequence[dict[str, Any]], folder: Path, command: str) -> list[Path]:
    """One file a case that has several rates: a column an SLO. Raises UserError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot be written: {error.strerror}", where=str(folder)) from error
    files = []
    for case in dict.fromkeys(row["case"] for row in rows if "load" in row):
        own = [row for row in rows if row["case"] == case]
        files.append(_case(case, own, folder / f"batching-{case}.png", command))
    return files


def _case(case: str, rows: Sequence[dict[str, Any]], file: Path, command: str) -> Path:
    multiples = list(dict.fromkeys(row["slo_multiple"] for row in rows))
    policies = list(dict.fromkeys(row["policy"] for row in rows))
    figure = Figure(figsize=(3.4 * len(multiples), 5.6), layout="constrained")
    grid = figure.subplots(2, len(multiples), squeeze=False, sharex=True, sharey="row")
    for column, multiple in enumerate(multiples):
        for place, key in enumerate(("finish_rate", "goodput")):
            axes = grid[place][column]
            for number, policy in enumerate(policies):
                own = [r for r in rows if (r["policy"], r["slo_multiple"]) == (policy, multiple)]
                own.sort(key=lambda row: row["rate"])
                line = f"{_MARKS[number % len(_MARKS)]}-"
                xs, ys = [row["rate"] for row in own], [row[key] for row in own]
                axes.plot(xs, ys, line, color=COLOURS[number % len(COLOURS)], label=policy)
            axes.grid(alpha=0.25)
            axes.spines[["top", "right"]].set_visible(False)
        grid[0][column].set_title(f"SLO {multiple:g} × P99", fontsize=10)
        grid[1][column].set_xlabel("requests a second")
    grid[0][0].set_ylabel("finished in time")
    grid[0][0].set_ylim(0, 1.03)
    grid[1][0].set_ylabel("in time a second")
    grid[0][-1].legend(frameon=False, fontsize=9)
    figure.suptitle(f"{case}, {rows[0]['label']}: {command}", fontsize=8)
    try:
        figure.savefig(file, dpi=110)
    except OSError as error:
        raise UserError(f"cannot be written: {error.strerror}", where=str(file)) from error
    return file
