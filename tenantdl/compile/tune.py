"""Measure candidate schedules in the context of their network, and record the winners.

The network is lowered several times, once with every operator's best-ranked candidate, once with
every second-best, and so on; the variants run in turns, whole, so that each operator finds its
operands as warm or cold as they will be. A hot loop over one operator misleads (research: the sum
of hot times was 46.7 ms, in sequence 55).
"""

from __future__ import annotations

import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tenantdl.bundle.load import load_bundle
from tenantdl.bundle.manifest import LIBRARY, WEIGHTS
from tenantdl.compile.build import build_library
from tenantdl.compile.files import new_manifest, static_plan, write_manifest, write_weights
from tenantdl.compile.graph import Graph
from tenantdl.compile.lower import lower
from tenantdl.compile.memory import plan_memory
from tenantdl.compile.operator import Program
from tenantdl.compile.schedules import Record, Schedules
from tenantdl.compile.target import CpuTarget
from tenantdl.errors import UserError
from tenantdl.exec.cores import pin
from tenantdl.exec.runner import Runner
from tenantdl.machine import this_machine

Effort = Literal["none", "fast", "full"]


@dataclass(frozen=True, slots=True)
class Budget:
    """`ranks`: candidates an operator; no further one is built after `build_seconds`; the variants
    are measured for `measure_seconds`."""

    ranks: int
    build_seconds: float
    measure_seconds: float


BUDGETS: Mapping[Effort, Budget] = {
    "none": Budget(0, 0.0, 0.0),
    "fast": Budget(6, 40.0, 10.0),
    "full": Budget(32, 1800.0, 120.0),
}
# A winner has to be this much better than the first-ranked candidate: noise is no reason.
_MARGIN = 0.985
_PERCENTILE = 20
_ROUNDS_MIN = 5


def effort_of(text: str) -> Effort:
    """The effort called `text`. Raises UserError for another word."""
    for effort in BUDGETS:
        if effort == text:
            return effort
    raise UserError(f"unknown tuning effort {text!r}: one of {', '.join(BUDGETS)}")


def tune(
    graph: Graph,
    target: CpuTarget,
    cores: Sequence[int],
    known: Sequence[Record],
    effort: Effort,
    *,
    winograd4: bool = True,
) -> list[Record]:
    """Records for the operators of `graph` that `known` has none for. Measured on 1 … max(cores)
    cores, as far as this machine has them; the least product of times wins."""
    budget = BUDGETS[effort]
    counts = sorted({n for n in cores if n <= len(this_machine().cores)} or {1})
    with tempfile.TemporaryDirectory(prefix="tenantdl-tune-") as folder:
        variants: list[tuple[Program, Runner]] = []
        start, seen = time.monotonic(), set[tuple[str, ...]]()
        for rank in range(budget.ranks):
            if time.monotonic() - start > budget.build_seconds:
                break
            schedules = Schedules(known, rank, winograd4=winograd4)
            program = lower(graph, target, max(cores), schedules)
            kernels = tuple(op.kernel.key for op in program.operators)
            if kernels not in seen and any(_open(program, op) for op in range(len(kernels))):
                seen.add(kernels)
                variants.append((program, _runner(graph, program, target, Path(folder, str(rank)))))
        if len(variants) < 2:
            return []
        with ThreadPoolExecutor(1) as thread:  # affinity and core group are a thread's own
            runners = [runner for _, runner in variants]
            times = thread.submit(_measure, runners, counts, budget.measure_seconds).result()
    return _winners([program for program, _ in variants], times)


def _open(program: Program, operator: int) -> bool:
    return any(not choice.settled for choice in program.operators[operator].choices)


def _runner(graph: Graph, program: Program, target: CpuTarget, folder: Path) -> Runner:
    folder.mkdir()
    memory = plan_memory(program)
    build_library((op.kernel for op in program.operators), target, folder / LIBRARY)
    write_weights(memory.weights, folder / WEIGHTS)
    plan = static_plan(graph, program, memory, 1)
    write_manifest(new_manifest("variant", target, (1,), (plan,), folder, ""), folder)
    return Runner(load_bundle(folder, verify=False))


def _measure(
    runners: Sequence[Runner], counts: Sequence[int], seconds: float
) -> list[NDArray[np.float64]]:
    """For each variant the time of each operator, ns: [core counts][operators]."""
    samples: list[list[list[list[int]]]] = [[[] for _ in counts] for _ in runners]
    cores = this_machine().cores
    start = time.monotonic()
    while len(samples[0][0]) < _ROUNDS_MIN or time.monotonic() - start < seconds:
        for index, count in enumerate(counts):
            pin(cores[:count])
            for runner, taken in zip(runners, samples, strict=True):
                taken[index].append(runner.time_ns())
    return [np.percentile(np.array(taken), _PERCENTILE, axis=1) for taken in samples]


def _winners(programs: Sequence[Program], times: Sequence[NDArray[np.float64]]) -> list[Record]:
    """The schedule with the least product over the core counts, for each open key. Operators of one
    key are added up."""
    totals: dict[str, dict[str, NDArray[np.float64]]] = defaultdict(dict)
    for program, measured in zip(programs, times, strict=True):
        sums: dict[tuple[str, str], NDArray[np.float64]] = {}
        for number, operator in enumerate(program.operators):
            for choice in operator.choices:
                if not choice.settled:
                    which = (choice.key, repr(choice.schedule))
                    sums[which] = sums.get(which, 0.0) + measured[:, number]
        for (key, schedule), total in sums.items():
            known = totals[key].get(schedule)
            totals[key][schedule] = total if known is None else np.minimum(known, total)
    records = []
    for key, candidates in totals.items():
        first = next(iter(candidates))
        best = min(candidates, key=lambda s: float(np.prod(candidates[s])))
        if np.prod(candidates[best]) > np.prod(candidates[first]) * _MARGIN ** len(times[0]):
            best = first
        ns, first_ns = (tuple(round(float(t)) for t in candidates[s]) for s in (best, first))
        records.append(Record(key, best, ns, first_ns))
    return records
