"""What `compile`, `inspect` and `run` show about a bundle and about outputs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tenantdl.bundle.manifest import LIBRARY, WEIGHTS, Manifest, Plan, calls_of
from tenantdl.cli import render
from tenantdl.units import to_ms

GENERIC = "generic"


def compiled(manifest: Manifest, folder: Path) -> None:
    """The summary after compiling: size of the work, coverage by kernels, time by phase."""
    _facts(manifest, folder)
    _coverage(manifest.plans[0])
    phases = manifest.summary.get("seconds")
    if isinstance(phases, dict):
        total = sum(phases.values())
        rows = [(name, f"{seconds:.2f}") for name, seconds in phases.items()]
        render.line()
        render.table("", ["Phase", ">seconds"], [*rows, ("total", f"{total:.2f}")])


def inspected(manifest: Manifest, folder: Path) -> None:
    """Everything that matters in a manifest."""
    _facts(manifest, folder)
    plan = manifest.plans[0]
    render.line()
    rows = [
        (role, tensor.name, tensor.dtype, render.shape(tensor.shape))
        for role, tensors in (("input", plan.inputs), ("output", plan.outputs))
        for tensor in tensors
    ]
    render.table(f"Plan for batch {plan.batch}", ["", "Tensor", "Dtype", "Shape"], rows)
    _coverage(plan)
    if len(plan.variants) > 1:
        render.line()
        _variants(plan)
    if len(manifest.plans) > 1:
        render.line()
        _plans(manifest)


def _variants(plan: Plan) -> None:
    """What each variant of a plan was chosen for, and what it takes, measured at compile time."""
    counts = plan.variants[0].cores
    rows = []
    for number, variant in enumerate(plan.variants):
        times = [f"{to_ms(sum(costs)):.2f}" for costs in variant.cost_ns]
        pressed = f"{to_ms(sum(variant.pressed_ns)):.2f}" if variant.pressed_ns else "–"
        private = render.size(max(variant.private_bytes, default=0))
        traffic = render.size(sum(variant.traffic_bytes))
        rows.append((number, variant.goal, len(variant.substitutes), *times, pressed))
        rows[-1] = (*rows[-1], private, traffic)
    columns = [">variant", "For", ">calls replaced", *(f">ms on {n} core(s)" for n in counts)]
    columns += [">beside a writer", ">own caches", ">from beyond"]
    render.table("Variants of the first plan", columns, rows)
    ways = [len(set(choice)) for choice in _by_segment(plan)]
    spread = ", ".join(f"{n} × {ways.count(n)}" for n in sorted(set(ways)))
    render.line(f"Different ways to run a segment: {spread} (ways × segments)")


def _by_segment(plan: Plan) -> list[list[tuple[str, ...]]]:
    """For each segment the kernels of every variant."""
    calls = [calls_of(plan, number) for number in range(len(plan.variants))]
    return [
        [tuple(call.symbol for call in each[part.begin : part.end]) for each in calls]
        for part in plan.segments
    ]


def _plans(manifest: Manifest) -> None:
    """One row a plan, and what may be padded."""
    rows = []
    for number, plan in enumerate(manifest.plans):
        cost = to_ms(sum(segment.cost_ns for segment in plan.segments))
        shapes = ", ".join(f"{t.name} {render.shape(t.shape)}" for t in plan.inputs)
        each = f"{cost / plan.batch:.2f}"
        rows.append((number, plan.batch, shapes, len(plan.calls), f"{cost:.2f}", each))
    columns = [">plan", ">batch", "Inputs", ">operators", ">ms on one core", ">a request"]
    render.table("", columns, rows)
    if manifest.padding:
        axes = ", ".join(f"{name} axis {axis}" for name, axis in manifest.padding.inputs)
        render.line(f"Shorter inputs are padded with zeros to the next plan: {axes}")


def outputs(values: Mapping[str, NDArray[Any]], file: Path | None) -> None:
    """One row an output, so that a look tells whether it is sane."""
    rows = [
        (name, value.dtype, render.shape(value.shape), *_statistics(value))
        for name, value in values.items()
    ]
    render.table("", ["Output", "Dtype", "Shape", ">min", ">mean", ">max"], rows)
    if file is not None:
        render.line(f"Written to {file}")


def output_rows(values: Mapping[str, NDArray[Any]]) -> list[dict[str, Any]]:
    """The same for programs."""
    return [
        {"output": name, "dtype": value.dtype.name, "shape": list(value.shape)}
        | dict(zip(("min", "mean", "max"), _numbers(value), strict=True))
        for name, value in values.items()
    ]


def _on_more_cores(plan: Plan) -> list[tuple[str, str]]:
    if not plan.variants:
        return []
    pairs = zip(plan.variants[0].cores, plan.variants[0].cost_ns, strict=True)
    return [(f"on {n} cores", f"{to_ms(sum(costs)):.2f} ms") for n, costs in pairs if n > 1]


def _facts(manifest: Manifest, folder: Path) -> None:
    plan = manifest.plans[0]
    cost = sum(segment.cost_ns for segment in plan.segments)
    features = " ".join(manifest.target.features) or "none beyond the baseline"
    rows = [
        ("model", manifest.name),
        ("bundle", f"{folder} (format {manifest.format}, by {manifest.created_by})"),
        ("target", f"{manifest.target.arch} {manifest.target.mcpu}"),
        ("CPU features needed", features),
        ("core counts", ", ".join(map(str, manifest.cores))),
        ("operators", len(plan.calls)),
        ("segments", len(plan.segments)),
        ("GFLOPs", f"{sum(call.flops for call in plan.calls) / 1e9:.3f}"),
        ("latency on one core", f"{to_ms(cost):.2f} ms ({plan.cost_source})"),
        *_on_more_cores(plan),
        ("activations", render.size(plan.arena_bytes)),
        ("weights", _file_size(folder / WEIGHTS)),
        ("kernel library", _file_size(folder / LIBRARY)),
    ]
    render.table("", ["", ""], rows)


def _coverage(plan: Plan) -> None:
    """Which kernels carry the work: templates first, the generic fallback last."""
    total = sum(call.flops for call in plan.calls)
    by_kind: dict[str, tuple[int, int]] = {}
    for call in plan.calls:
        count, flops = by_kind.get(call.kind, (0, 0))
        by_kind[call.kind] = (count + 1, flops + call.flops)
    order = sorted(by_kind, key=lambda kind: (kind == GENERIC, -by_kind[kind][1], kind))
    rows = [
        (
            kind,
            by_kind[kind][0],
            render.percent(by_kind[kind][0], len(plan.calls)),
            render.percent(by_kind[kind][1], total),
        )
        for kind in order
    ]
    render.line()
    render.table("", ["Kernel", ">operators", ">of operators", ">of FLOPs"], rows)


def _file_size(file: Path) -> str:
    return render.size(file.stat().st_size) if file.is_file() else "missing"


def _statistics(value: NDArray[Any]) -> list[str]:
    return ["–" if number is None else f"{number:.5g}" for number in _numbers(value)]


def _numbers(value: NDArray[Any]) -> tuple[float | None, float | None, float | None]:
    """Least, mean and greatest element."""
    if value.size == 0 or value.dtype.kind == "S":
        return None, None, None
    numbers = value.astype(np.float64)
    return float(numbers.min()), float(numbers.mean()), float(numbers.max())
