"""Plots of simulations: cores over time by tenant, share in time and conflicts against the rate."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from tenantdl.bench.report_plots import COLOURS
from tenantdl.errors import UserError
from tenantdl.sim.engine import Span
from tenantdl.sim.simulate import Scenario, at_rate, run
from tenantdl.units import MS

# Of the scenario's rate.
RATES = (0.4, 0.6, 0.8, 1.0, 1.2, 1.4, 1.7, 2.0)
_WINDOW_MS = 60.0
_MARKS = "os^vD*PX"


def draw(scenarios: Sequence[Scenario], folder: Path, command: str) -> list[Path]:
    """Draw for the first seed of every policy; the files. Raises UserError."""
    first = scenarios[0].seed
    chosen = [scenario for scenario in scenarios if scenario.seed == first]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot be written: {error.strerror}", where=str(folder)) from error
    files = [_gantt(scenario, folder) for scenario in chosen]
    return files + _curves(chosen, folder)


def _gantt(scenario: Scenario, folder: Path) -> Path:
    """Every core of the machine over a window in the middle of the run, coloured by tenant."""
    result = run(scenario, keep_spans=True)
    outcome = result.outcome
    start = outcome.end // 2
    spans = [s for s in outcome.spans if s.end > start and s.begin < start + round(_WINDOW_MS * MS)]
    owners = {a.arrived.request: str(a.arrived.tenant) for a in outcome.answers}
    figure = Figure(figsize=(10, 5.2), layout="constrained")
    axes = figure.subplots()
    for number, tenant in enumerate(scenario.workload.tenant):
        own = [span for span in spans if owners.get(span.launch.request) == tenant.name]
        colour = COLOURS[number % len(COLOURS)]
        for low, high, bars in _by_cores(own, start):
            axes.broken_barh(
                bars, (low, high - low), facecolors=colour, edgecolors="white", linewidth=0.25
            )
        axes.plot([], [], "s", color=colour, label=tenant.name)
    axes.set_xlim(0, _WINDOW_MS)
    axes.set_ylim(0, scenario.machine.cores)
    axes.set_xlabel("ms")
    axes.set_ylabel("core")
    axes.set_title(_title(scenario, f"{scenario.rate:g} requests a second"), fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    columns = min(len(scenario.workload.tenant), 7)
    figure.legend(frameon=False, ncols=columns, loc="outside lower center", fontsize=9)
    return _save(figure, folder / f"cores-{_file(scenario.policy)}.png")


def _by_cores(
    spans: Sequence[Span], start: int
) -> list[tuple[int, int, list[tuple[float, float]]]]:
    """Bars by runs of neighbouring cores: (first, last + 1, [(ms from `start`, ms)])."""
    bars: dict[tuple[int, int], list[tuple[float, float]]] = {}
    for span in spans:
        bar = ((span.begin - start) / MS, (span.end - span.begin) / MS)
        cores = sorted(span.launch.cores)
        low = 0
        for place in range(1, len(cores) + 1):
            if place == len(cores) or cores[place] != cores[place - 1] + 1:
                bars.setdefault((cores[low], cores[place - 1] + 1), []).append(bar)
                low = place
    return [(low, high, sorted(own)) for (low, high), own in sorted(bars.items())]


def _curves(scenarios: Sequence[Scenario], folder: Path) -> list[Path]:
    rates = [scenarios[0].rate * part for part in RATES]
    results = [[run(at_rate(s, rate)) for rate in rates] for s in scenarios]
    shares = [[result.attainment for result in row] for row in results]
    conflicts = [[float(result.row()["conflict_rate"]) for result in row] for row in results]
    return [
        _lines(scenarios, rates, shares, "share in time", 0.95, folder / "qos-by-rate.png"),
        _lines(scenarios, rates, conflicts, "conflicts a launch", None, folder / "conflicts.png"),
    ]


def _lines(
    scenarios: Sequence[Scenario],
    rates: Sequence[float],
    values: Sequence[Sequence[float]],
    label: str,
    goal: float | None,
    path: Path,
) -> Path:
    figure = Figure(figsize=(8, 4.4), layout="constrained")
    axes: Any = figure.subplots()
    for number, (scenario, row) in enumerate(zip(scenarios, values, strict=True)):
        dashed = number >= len(COLOURS)
        axes.plot(
            rates,
            row,
            marker=_MARKS[number % len(_MARKS)],
            linestyle="--" if dashed else "-",
            color=COLOURS[number % len(COLOURS)],
            label=scenario.policy,
            linewidth=1.6,
            markersize=4.5,
        )
    if goal is not None:
        axes.axhline(goal, color="#b3261e", linewidth=1.0)
    axes.set_ylim(-0.02, 1.02)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.set_xlabel("requests a second")
    axes.set_ylabel(label)
    axes.set_title(_title(scenarios[0], None), fontsize=10)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(frameon=False, loc="outside right upper", fontsize=9)
    return _save(figure, path)


def _title(scenario: Scenario, more: str | None) -> str:
    words = [scenario.workload.name, f"{scenario.machine.name} machine", "simulated"]
    if more is not None:
        words[1:1] = [scenario.policy, more]
    return ", ".join(words)


def _file(policy: str) -> str:
    return policy.replace("(", "-").replace(")", "")


def _save(figure: Figure, path: Path) -> Path:
    try:
        figure.savefig(path, dpi=110, metadata={"Software": None})
    except OSError as error:
        raise UserError(f"cannot be written: {error.strerror}", where=str(path)) from error
    return path
