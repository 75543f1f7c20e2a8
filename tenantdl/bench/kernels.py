"""Operators alone beside the peers' and beside what the machine can do at best: a roofline.

Every distinct convolution and matrix product of a model becomes an ONNX model of one node, which
each runtime runs again and again (so its operands are as warm as its caches allow). FLOPs and bytes
are those of the ONNX node for everybody: an algorithm that multiplies less, Winograd's, may pass
100 % of the peak.
"""

from __future__ import annotations

import hashlib
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from tenantdl.api import Progress
from tenantdl.bench import cache, roofline
from tenantdl.bench.operator_profiles import PROFILES, Ours, Profile, take_turns
from tenantdl.bench.peers import Job, on_cores
from tenantdl.bundle.load import read_manifest
from tenantdl.errors import UserError
from tenantdl.ids import CoreId
from tenantdl.load.inputs import random_inputs
from tenantdl.machine import usable_cores

if TYPE_CHECKING:
    from tenantdl.compile.graph import Graph, Node

OURS = "tenantdl"
KINDS = ("Conv", "ConvTranspose", "MatMul", "Gemm")
_TURN = 8
_TURN_US = 20_000.0

Row: TypeAlias = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Settings:
    """What to measure. `kinds`: ONNX operators; `runs`: calls that count, at least."""

    against: tuple[str, ...] = ("onnxruntime", "openvino")
    threads: tuple[int, ...] = (1,)
    kinds: tuple[str, ...] = KINDS
    batch: int = 1
    runs: int = 40
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Operator:
    """A node alone: `file` is its ONNX model, `count` how often the model has it."""

    model: str
    text: str
    kind: str
    count: int
    flops: int
    nbytes: int
    file: Path


def measure(
    models: Sequence[str], settings: Settings, progress: Progress
) -> tuple[list[Row], list[str]]:
    """Rows, and what could not be measured, a line each.

    A row: model, operator, kind, count, threads, target, median_us, p05_us, p95_us, runs, flops,
    bytes, gflops, gbytes_s, bound ("compute" or the level that holds its bytes), peak_gflops,
    level_gbytes_s and share: the least time that the machine needs over the median.
    """
    everything = usable_cores()
    if max(settings.threads) > len(everything):
        raise UserError(
            f"{max(settings.threads)} threads asked for, {len(everything)} cores usable"
        )
    operators = [op for name in models for op in _operators(name, settings)]
    bundles = {}
    steps = len(operators) * (1 + len(settings.threads))
    for number, operator in enumerate(operators):
        progress(f"{operator.model} {operator.text}: compiling", number / steps)
        source = cache.Source(operator.file.stem, operator.file, None)
        bundles[operator.file] = cache.bundle(source, batch=settings.batch, shapes={})
    rows: list[Row] = []
    failures: list[str] = []
    for turn, threads in enumerate(settings.threads, 1):
        cores = everything[:threads]
        with on_cores(cores):
            machine = roofline.measure(cores)
            for number, operator in enumerate(operators, turn * len(operators)):
                progress(f"{operator.model} {operator.text}: on {threads}", number / steps)
                bundle = bundles[operator.file]
                rows += _measure_one(operator, bundle, cores, machine, settings, failures)
    return rows, failures


def _measure_one(
    operator: Operator,
    bundle: Path,
    cores: tuple[CoreId, ...],
    machine: roofline.Machine,
    settings: Settings,
    failures: list[str],
) -> list[Row]:
    inputs = random_inputs(read_manifest(bundle).plans[0].inputs, settings.seed)
    profiles: dict[str, Profile] = {OURS: Ours(bundle, inputs, cores)}
    for peer in settings.against:
        try:
            profiles[peer] = PROFILES[peer](Job(operator.file, inputs, cores))
        except UserError as error:
            failures.append(str(error))
        except Exception as error:  # the peers' own classes derive from Exception directly
            failures.append(f"{operator.text}: {peer} cannot run it: {error}")
    least_us = machine.least_s(operator.flops, operator.nbytes) * 1e6
    turn = int(max(1, min(_TURN, _TURN_US / max(1.0, least_us))))
    times = take_turns(profiles, -(-settings.runs // turn), turn)
    return [_row(operator, name, taken, machine) for name, taken in times.items()]


def _row(operator: Operator, target: str, taken: list[float], machine: roofline.Machine) -> Row:
    low, high = (float(time) for time in np.percentile(taken, [5, 95]))
    median = max(statistics.median(taken), 1e-3)
    level = machine.level(operator.nbytes)
    compute = operator.flops / machine.gflops >= operator.nbytes / level.gbytes_s
    return {
        "model": operator.model,
        "operator": operator.text,
        "kind": operator.kind,
        "count": operator.count,
        "threads": machine.threads,
        "target": target,
        "median_us": median,
        "p05_us": low,
        "p95_us": high,
        "runs": len(taken),
        "flops": operator.flops,
        "bytes": operator.nbytes,
        "gflops": operator.flops / median / 1e3,
        "gbytes_s": operator.nbytes / median / 1e3,
        "bound": "compute" if compute else level.name,
        "peak_gflops": machine.gflops,
        "level_gbytes_s": level.gbytes_s,
        "share": machine.least_s(operator.flops, operator.nbytes) * 1e6 / median,
    }


def _operators(name: str, settings: Settings) -> list[Operator]:
    """The distinct operators of a model, in the order of their first use."""
    from tenantdl.compile.frontend import load_graph

    source = cache.source(name, batch=settings.batch, seed=settings.seed)
    shapes = cache.shapes_of(source.samples or {})
    graph = load_graph(source.file, batch=settings.batch, shapes=shapes or None)
    nodes: dict[str, list[Node]] = {}
    for node in graph.nodes:
        if node.op in settings.kinds:
            nodes.setdefault(describe(graph, node), []).append(node)
    if not nodes:
        raise UserError(f"{source.name} has none of {', '.join(settings.kinds)}")
    return [
        Operator(
            source.name,
            text,
            same[0].op,
            len(same),
            flops(graph, same[0]),
            sum(graph.types[n].nbytes for n in (*same[0].inputs, *same[0].outputs) if n),
            _file(graph, same[0], text),
        )
        for text, same in nodes.items()
    ]


def describe(graph: Graph, node: Node) -> str:
    """Operator, shapes and attributes that are not their defaults, for people and as identity."""
    shapes = ["x".join(map(str, graph.types[n].shape)) for n in node.inputs if n]
    attrs = []
    for key, value in sorted(node.attrs.items()):
        plain = list(value) if isinstance(value, (list, tuple)) else value
        usual = isinstance(plain, list) and set(plain) <= {0 if key == "pads" else 1}
        if key != "kernel_shape" and not usual and plain not in (1, "NOTSET"):
            attrs.append(f"{key}={','.join(map(str, plain)) if isinstance(plain, list) else plain}")
    constant = "" if any(n in graph.constants for n in node.inputs) else "varying"
    return " ".join([node.op, *shapes, *attrs, *([constant] if constant else [])])


def flops(graph: Graph, node: Node) -> int:
    """Floating-point operations of a convolution or matrix product; 0 for other operators."""
    first, second = (graph.types[n].shape for n in node.inputs[:2]) if node.inputs[1:] else ((), ())
    out = graph.types[node.outputs[0]].size
    if node.op == "Conv":
        return 2 * out * int(np.prod(second[1:], dtype=np.int64))
    if node.op == "ConvTranspose":
        return 2 * graph.types[node.inputs[0]].size * int(np.prod(second[1:], dtype=np.int64))
    if node.op in ("MatMul", "Gemm"):
        return 2 * out * int(first[0 if node.attrs.get("transA") else -1])
    return 0


def _file(graph: Graph, node: Node, text: str) -> Path:
    """The node as an ONNX file in the cache; constants are the model's."""
    import onnx

    from tenantdl.compile.frontend import to_onnx

    digest = hashlib.sha256()
    for name in node.inputs:
        if name in graph.constants:
            digest.update(graph.constants[name].tobytes())
    digest.update(text.encode())
    file = cache.folder() / f"operator-{digest.hexdigest()[:16]}.onnx"
    if not file.is_file():
        onnx.save(to_onnx(graph, [node]), file)
    return file
