"""`bench overhead`: what serving adds to a model, beside Triton's, and how many short requests fit.

Both servers run at once on the same cores and are asked in turns, so that a slow phase of the
machine hits both; who is not asked sleeps. Latency is that of one client with one request under
way, from sending to the last byte of the answer, less the median of the model called in process
(a compiled bundle for us, an onnxruntime session for Triton, whose backend here is that). Times in
µs.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import numpy as np

from tenantdl import api
from tenantdl.api import Progress
from tenantdl.bench import cache
from tenantdl.bench.envelope import write_results
from tenantdl.bench.overhead_client import Asked, Call, answer, opened, percentiles, saturate
from tenantdl.bench.overhead_models import Made, write_models
from tenantdl.bench.peers import Job, on_cores, open_onnxruntime
from tenantdl.bench.serving.targets import TARGETS, Served, Setup, check_target
from tenantdl.errors import ExecutionError
from tenantdl.load.workload import Workload, parse_workload
from tenantdl.machine import usable_cores

Row = dict[str, Any]
SERVERS = {"tenantdl": "daemon", "triton": "triton"}
CELLS = [(p, m) for p in ("http", "grpc") for m in ("none", "system")]
_WARM = 3
_AGREE = 1e-3
_WORKLOAD = """
name = "overhead"
bundles = "/"
[server]
grpc_port = 0
"""
_TENANT = """
[[tenant]]
name = {name}
model = {name}
bundle = {bundle}
onnx = {onnx}
qos_ms = 10000
rate = 1
"""


@dataclass(frozen=True, slots=True)
class Settings:
    """`rounds` of `calls` timed calls a server, model, protocol and kind of memory, `gap_ms` apart.
    `seconds` of saturation a server and round of `saturations`, by `connections` at once."""

    servers: tuple[str, ...] = tuple(SERVERS)
    rounds: int = 10
    calls: int = 50
    gap_ms: float = 0.0
    saturations: int = 3
    seconds: float = 3.0
    connections: int = 8


@dataclass(frozen=True, slots=True)
class _Case:
    """A model and how it is asked; `bare` calls it in process, by server."""

    asked: Asked
    bundle: Path
    file: Path
    bare: Mapping[str, Call]


def measure(
    settings: Settings,
    *,
    json: Path | None = None,
    command: str = "tenantdl bench overhead",
    progress: Progress = lambda phase, part: None,
) -> list[Row]:
    """Rows of one server, model, protocol and memory each, then of saturation. Raises UserError for
    servers that are not set up, ExecutionError for wrong answers."""
    for server in settings.servers:
        check_target(SERVERS[server])
    with TemporaryDirectory(prefix="tenantdl-overhead-") as folder:
        progress("compiling", 0.0)
        cases = [_case(made) for made in write_models(Path(folder))]
        with _servers(settings, cases, Path(folder)) as servers:
            for served in servers.values():
                for case in cases:
                    _check(served, case)
            rows = _latencies(settings, cases[:-1], servers, progress)
            rows += _saturations(settings, cases[-1], servers, progress)
    if json is not None:
        write_results(json, rows, command=command, seed=0)
    return rows


def _case(made: Made) -> _Case:
    source = cache.Source(made.name, made.file, None)
    bundle = cache.bundle(source, batch=1, shapes={"x": made.shape})
    inputs = {"x": np.random.default_rng(0).standard_normal(made.shape, dtype=np.float32)}
    core = usable_cores()[0]
    with on_cores([core]):
        model = api.load(bundle)
        ours = model.run(inputs)
    session = open_onnxruntime(Job(made.file, inputs, (core,)))
    asked = Asked(made.name, inputs, {name: array.nbytes for name, array in ours.items()})
    bare = {"tenantdl": lambda: model.run(inputs), "triton": session}
    return _Case(asked, bundle, made.file, bare)


def _workload(cases: Sequence[_Case]) -> Workload:
    text = _WORKLOAD
    for case in cases:
        values = {
            "name": case.asked.model,
            "bundle": str(case.bundle.resolve()),
            "onnx": str(case.file),
        }
        quoted = {key: msgspec.json.encode(value).decode() for key, value in values.items()}
        text += _TENANT.format(**quoted)
    return parse_workload(text)


@contextmanager
def _servers(
    settings: Settings, cases: Sequence[_Case], folder: Path
) -> Iterator[dict[str, Served]]:
    with ExitStack() as stack:
        servers = {}
        for name in settings.servers:
            place = folder / name
            place.mkdir()
            setup = Setup(_workload(cases), place, journal=False)
            servers[name] = stack.enter_context(TARGETS[SERVERS[name]](setup))
        yield servers


def _check(served: Served, case: _Case) -> None:
    """Whether a server's answer is that of the bundle. Raises ExecutionError."""
    expected: Any = case.bare["tenantdl"]()
    for name, array in answer(served.url, case.asked).items():
        worst = float(np.max(np.abs(array.reshape(expected[name].shape) - expected[name])))
        if worst > _AGREE * max(1.0, float(np.max(np.abs(expected[name])))):
            raise ExecutionError(f"{served.url} answers {case.asked.model} wrongly, by {worst:.3g}")


def _latencies(
    settings: Settings,
    cases: Sequence[_Case],
    servers: Mapping[str, Served],
    progress: Progress,
) -> list[Row]:
    bare: dict[tuple[str, str], list[int]] = {}
    taken: dict[tuple[str, str, str, str], list[int]] = {}
    with ExitStack() as stack:
        calls = {
            (server, case.asked.model, protocol, memory): stack.enter_context(
                opened(protocol, memory, served.url, served.grpc or "", case.asked)
            )
            for server, served in servers.items()
            for case in cases
            for protocol, memory in CELLS
        }
        for number in range(settings.rounds):
            progress("latency", number / settings.rounds)
            names = list(servers) if number % 2 else list(servers)[::-1]
            for case in cases:
                for server in names:
                    key = (server, case.asked.model)
                    timed = _timed(case.bare[server], settings.calls)
                    bare.setdefault(key, []).extend(timed)
                for protocol, memory in CELLS:
                    for server in names:
                        cell = (server, case.asked.model, protocol, memory)
                        timed = _timed(calls[cell], settings.calls, settings.gap_ms)
                        taken.setdefault(cell, []).extend(timed)
    return [_row(cell, taken[cell], bare[cell[:2]], cases, settings) for cell in sorted(taken)]


def _timed(call: Call, count: int, gap_ms: float = 0.0) -> list[int]:
    for _ in range(_WARM):
        call()
    times = []
    for _ in range(count):
        if gap_ms:
            time.sleep(gap_ms / 1e3)
        begun = time.perf_counter_ns()
        call()
        times.append(time.perf_counter_ns() - begun)
    return times


def _row(
    cell: tuple[str, str, str, str],
    taken: Sequence[int],
    bare: Sequence[int],
    cases: Sequence[_Case],
    settings: Settings,
) -> Row:
    server, model, protocol, memory = cell
    asked = next(case.asked for case in cases if case.asked.model == model)
    alone, (p50, p99) = percentiles(bare)[0], percentiles(taken)
    return {
        "kind": "latency",
        "label": "measured",
        "server": server,
        "model": model,
        "tensor_bytes": sum(array.nbytes for array in asked.inputs.values()),
        "protocol": protocol,
        "shared_memory": memory,
        "bare_p50_us": round(alone, 1),
        "p50_us": round(p50, 1),
        "p99_us": round(p99, 1),
        "added_p50_us": round(p50 - alone, 1),
        "added_p99_us": round(p99 - alone, 1),
        "calls": len(taken),
        "gap_ms": settings.gap_ms,
    }


def _saturations(
    settings: Settings,
    case: _Case,
    servers: Mapping[str, Served],
    progress: Progress,
) -> list[Row]:
    rates: dict[str, list[float]] = {server: [] for server in servers}
    cores = len(usable_cores())
    for number in range(settings.saturations):
        progress("saturation", number / settings.saturations)
        for server in list(servers) if number % 2 else list(servers)[::-1]:
            url = servers[server].url
            rates[server].append(saturate(url, case.asked, settings.connections, settings.seconds))
    rows = []
    for server, each in rates.items():
        if not each:
            continue
        alone, _ = percentiles(_timed(case.bare[server], settings.calls))
        rate = float(np.median(each))
        rows.append(
            {
                "kind": "saturation",
                "label": "measured",
                "server": server,
                "model": case.asked.model,
                "bare_p50_us": round(alone, 1),
                "connections": settings.connections,
                "requests_s": round(rate, 1),
                "requests_s_each": [round(one, 1) for one in each],
                # Of what the cores would do if they did nothing else.
                "of_bare": round(rate * alone / 1e6 / cores, 3),
            }
        )
    return rows
