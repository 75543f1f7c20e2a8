"""Which of the ways to run a plan become its variants: measured once, together, then chosen.

All ways run in turns in the network, alone on one core, alone on the most cores, and on one core
beside a neighbour that writes memory. For every goal each operator takes the way that serves it
best; what comes out twice, or is no better than another in anything, is dropped:

  latency   soonest alone on one core (always there, and first)
  cores     soonest on the most cores
  pressed   soonest beside the neighbour
  private   the smallest working set that a core comes back to, where that costs little time
  traffic   the fewest bytes from beyond a core's own caches, where that costs little time
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from tenantdl.bundle.load import LoadedBundle
from tenantdl.bundle.manifest import Plan, Segment, Substitute, Variant
from tenantdl.compile.operator import Operator
from tenantdl.compile.segment import costs_of, cut, parts_of
from tenantdl.errors import ExecutionError
from tenantdl.exec.cores import pin
from tenantdl.exec.neighbour import of_stress
from tenantdl.exec.runner import Runner
from tenantdl.machine import this_machine

Array = NDArray[np.float64]

GOALS = ("latency", "cores", "pressed", "private", "traffic")
VARIANTS_MAX = len(GOALS)
# Another way has to be this much better than the plan's own: noise is no reason.
_MARGIN = 0.97
# A smaller footprint may cost so much time.
_DEAR = 1.10
# A variant has to be this much better than every other in something.
_WORTH = 0.99
_ROUNDS, _ROUNDS_MIN = 6, 3
_SECONDS_MAX = 3.0
_NEIGHBOUR = "write"


@dataclass(frozen=True, slots=True)
class Footprint:
    """Of one operator: bytes that a core comes back to, and bytes from beyond its caches."""

    private: int
    traffic: int


@dataclass(frozen=True, slots=True)
class Ways:
    """`substitutes` of each way beside the plan's own; `footprints[w]` of way w's operators, the
    plan's own first; `count`: of variants, at most."""

    substitutes: tuple[tuple[Substitute, ...], ...] = ()
    footprints: tuple[tuple[Footprint, ...], ...] = ()
    count: int = 1


ONE_WAY = Ways()


@dataclass(frozen=True, slots=True)
class _Times:
    """ns [ways, operators]; way 0 is the plan's own. `pressed`: None without a second core."""

    counts: tuple[int, ...]
    alone: tuple[Array, ...]
    pressed: Array | None


def footprint(operator: Operator, l2_bytes: int) -> Footprint:
    """By the schedule that was picked, where the template says; by the arguments, where not."""
    for choice in operator.choices:
        if choice.footprint is not None:
            return Footprint(*choice.footprint)
    nbytes = sum(parameter.nbytes for parameter in operator.kernel.parameters())
    return Footprint(min(nbytes, l2_bytes), nbytes)


def with_variants(
    bundle: LoadedBundle, plan: Plan, ways: Ways, cores: Sequence[int], arena: memoryview
) -> Plan:
    """`plan`, cut into segments, with its variants. Runs on the calling thread, which it pins."""
    times = _measure(Runner(bundle, _trial(plan, ways), arena), ways, cores)
    # What is run in parts has one kernel: its parts may come in different variants.
    own = zip(times.alone[0][0].tolist(), plan.calls, strict=True)
    fixed = np.array([parts_of(round(ns), call.loop) > 1 for ns, call in own])
    chosen = _chosen(times, ways, fixed)
    first = _of(times.alone[0], next(iter(chosen.values())))
    segments = cut([round(float(t)) for t in first], plan.calls)
    variants = tuple(_variant(goal, pick, ways, times, segments) for goal, pick in chosen.items())
    return msgspec.structs.replace(
        plan, segments=segments, cost_source="measured", variants=variants
    )


def _measure(runner: Runner, ways: Ways, cores: Sequence[int]) -> _Times:
    usable = this_machine().cores
    counts = tuple(sorted({1, *(many for many in cores if many <= len(usable))}))
    alone = []
    for many in counts:
        pin(usable[:many])
        alone.append(_rounds(runner, ways))
    pressed = None
    if len(usable) > 1:
        pin(usable[:1])
        with of_stress(_NEIGHBOUR, usable[1]) as neighbour:
            neighbour.go()
            pressed = _rounds(runner, ways)
    return _Times(counts, tuple(alone), pressed)


def _rounds(runner: Runner, ways: Ways) -> Array:
    """Least times over rounds in which all ways take turns. Where a way has the plan's own kernel,
    its times are further ones of that."""
    best: Array | None = None
    start = time.monotonic()
    for done in range(_ROUNDS):
        if done >= _ROUNDS_MIN and time.monotonic() - start > _SECONDS_MAX:
            break
        taken = np.array([runner.time_ns(way) for way in range(len(ways.footprints))], np.float64)
        best = taken if best is None else np.minimum(best, taken)
    if best is None:
        raise ExecutionError("nothing was measured")
    own = np.ones(best.shape, bool)
    for number, way in enumerate(ways.substitutes, 1):
        own[number, [substitute.position for substitute in way]] = False
    least: Array = np.where(own, np.where(own, best, np.inf).min(axis=0), best)
    return least


def _trial(plan: Plan, ways: Ways) -> Plan:
    """The plan with every way as a variant, to be timed."""
    nothing = tuple(0 for _ in plan.segments)
    variants = tuple(
        Variant("trial", tuple(way), (1,), (nothing,), (), (), ())
        for way in ((), *ways.substitutes)
    )
    return msgspec.structs.replace(plan, variants=variants)


def _chosen(times: _Times, ways: Ways, fixed: NDArray[np.bool_]) -> dict[str, NDArray[np.int64]]:
    """Goal → the way that each operator takes, the plan's own where it is `fixed`; `latency`
    first."""
    single, most = times.alone[0], times.alone[-1]
    private = np.array([[f.private for f in row] for row in ways.footprints], np.float64)
    traffic = np.array([[f.traffic for f in row] for row in ways.footprints], np.float64)
    affordable = np.where(single <= _DEAR * single.min(axis=0), 0.0, np.inf)
    goals = {
        "latency": single,
        "cores": most,
        "pressed": single if times.pressed is None else times.pressed,
        "private": private + affordable,
        "traffic": traffic + affordable,
    }
    picks = {goal: np.where(fixed, 0, _best(cost)) for goal, cost in goals.items()}
    axes = [single, most, goals["pressed"], private, traffic]
    kept: dict[str, NDArray[np.int64]] = {}
    for goal, pick in picks.items():
        if len(kept) < ways.count and _worth(pick, list(kept.values()), axes):
            kept[goal] = pick
    return kept


def _best(cost: Array) -> NDArray[np.int64]:
    """The way of least cost, the plan's own where none is clearly better."""
    best = np.argmin(cost, axis=0)
    clear = cost.min(axis=0) < _MARGIN * cost[0]
    picked: NDArray[np.int64] = np.where(clear, best, 0)
    return picked


def _worth(
    pick: NDArray[np.int64], others: Sequence[NDArray[np.int64]], axes: Sequence[Array]
) -> bool:
    """Whether `pick` is better than each of `others` in something."""
    own = [float(_of(axis, pick).sum()) for axis in axes]
    return all(
        any(
            mine < _WORTH * float(_of(axis, other).sum())
            for mine, axis in zip(own, axes, strict=True)
        )
        for other in others
    )


def _of(table: Array, pick: NDArray[np.int64]) -> Array:
    values: Array = table[pick, np.arange(table.shape[1])]
    return values


def _variant(
    goal: str,
    pick: NDArray[np.int64],
    ways: Ways,
    times: _Times,
    segments: Sequence[Segment],
) -> Variant:
    by_way = [{s.position: s for s in way} for way in ways.substitutes]
    taken = [ways.footprints[way][position] for position, way in enumerate(pick.tolist())]

    def sums(values: Sequence[float] | Array) -> tuple[int, ...]:
        return tuple(max(1, ns) for ns in costs_of(segments, [round(float(v)) for v in values]))

    return Variant(
        goal=goal,
        substitutes=tuple(
            by_way[way - 1][position] for position, way in enumerate(pick.tolist()) if way
        ),
        cores=times.counts,
        cost_ns=tuple(sums(_of(table, pick)) for table in times.alone),
        pressed_ns=() if times.pressed is None else sums(_of(times.pressed, pick)),
        private_bytes=tuple(
            max(f.private for f in taken[segment.begin : segment.end]) for segment in segments
        ),
        traffic_bytes=sums([f.traffic for f in taken]),
    )
