"""The plans of a bundle: for every shape bucket the graph is lowered anew, for every batch size its
program is repeated (`batch`). Kernels and packed weights are shared wherever they are equal.

A *bucket* is one extent of a dimension that varies (tokens, pixels of width). What is shorter may
be padded with zeros only where that changes nothing: models that take a mask. This is not assumed
but tried (`try_padding`): a convolution, for one, sees the zeros.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tenantdl.bundle.load import load_bundle
from tenantdl.bundle.manifest import Manifest, Padding, Plan, Substitute
from tenantdl.bundle.select import padded_to
from tenantdl.compile.alternatives import alternatives
from tenantdl.compile.batch import batched, check_batchable
from tenantdl.compile.files import call_of, static_plan
from tenantdl.compile.frontend.load import input_dims, load_graph
from tenantdl.compile.graph import Graph
from tenantdl.compile.lower import lower
from tenantdl.compile.memory import MemoryPlan, Weights, plan_memory
from tenantdl.compile.operator import Kernel, Operator, Program
from tenantdl.compile.rewrite import rewrite
from tenantdl.compile.schedules import Schedules
from tenantdl.compile.target import CpuTarget
from tenantdl.compile.variants import Ways, footprint
from tenantdl.errors import UserError
from tenantdl.exec.runner import Runner
from tenantdl.load.inputs import random_inputs

if TYPE_CHECKING:
    from onnx import ModelProto

Shapes = Mapping[str, tuple[int, ...]]
BUCKETS_MAX = 64
_TOLERANCE = 1e-5
_SEEDS = 2


@dataclass(frozen=True, slots=True)
class Bucket:
    """`dimension`: its name in the model, or INPUT.AXIS; `extents` in ascending order (none: see
    `_parts`)."""

    dimension: str
    extents: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Lowered:
    """One plan before kernels are compiled. `ways`: other operators at some positions."""

    graph: Graph
    program: Program
    memory: MemoryPlan
    batch: int
    together: int
    ways: tuple[Mapping[int, Operator], ...] = ()

    def plan(self) -> Plan:
        """The static plan."""
        return static_plan(self.graph, self.program, self.memory, self.batch, self.together)

    def trials(self, l2_bytes: int, count: int) -> Ways:
        """The ways to run it, ready to be tried, for `count` variants."""
        own = self.program.operators
        rows = [own, *([w.get(at, o) for at, o in enumerate(own)] for w in self.ways)]
        return Ways(
            tuple(
                tuple(
                    Substitute(at, call_of(o, o.kernel.parameters(), self.memory))
                    for at, o in way.items()
                )
                for way in self.ways
            ),
            tuple(tuple(footprint(o, l2_bytes) for o in row) for row in rows),
            count,
        )


@dataclass(frozen=True, slots=True)
class Axes:
    """Which (input, axis) pairs the dimension of a bucket is."""

    bucket: Bucket
    places: tuple[tuple[str, int], ...]


def bucket_shapes(
    model: str | Path | ModelProto, batch: int, shapes: Shapes | None, buckets: Sequence[Bucket]
) -> tuple[list[Shapes | None], list[Axes]]:
    """The shapes of each combination of extents; first the one that `shapes` names, if it is among
    them. Raises UserError for a dimension that there is not."""
    if not buckets:
        return [shapes], []
    declared = input_dims(model)
    given = dict(shapes or {})
    axes = []
    for bucket in buckets:
        places = _places(bucket.dimension, declared)
        chosen = bucket.extents or _parts(bucket.dimension, places, given)
        axes.append(Axes(Bucket(bucket.dimension, chosen), places))
    names = dict.fromkeys([*given, *(name for a in axes for name, _ in a.places)])
    found: list[Shapes | None] = []
    for extents in itertools.product(*(a.bucket.extents for a in axes)):
        fixed = {
            place: extent for a, extent in zip(axes, extents, strict=True) for place in a.places
        }
        found.append({n: _shape(n, declared[n], given.get(n), batch, fixed) for n in names})
    if len(found) > BUCKETS_MAX:
        raise UserError(f"{len(found)} combinations of buckets; at most {BUCKETS_MAX}")
    found.sort(key=lambda one: one != given)
    return found, axes


def grains(axes: Sequence[Axes], shapes: Sequence[Shapes | None]) -> list[Fraction]:
    """For each of `shapes`, what part of its extent the extents of all buckets are multiples of;
    nothing where buckets are of several dimensions, or of none."""
    if len(axes) != 1:
        return []
    name, axis = axes[0].places[0]
    common = math.gcd(*axes[0].bucket.extents)
    return [Fraction(common, one[name][axis]) for one in shapes if one is not None]


def _parts(
    dimension: str, places: Sequence[tuple[str, int]], given: Mapping[str, tuple[int, ...]]
) -> tuple[int, ...]:
    """A quarter, half and all of the extent that is given: few, since each is compiled anew."""
    extent = next((given[n][i] for n, i in places if n in given and i < len(given[n])), None)
    if extent is None:
        raise UserError(f"buckets of {dimension!r}: name them, or give the largest by its shape")
    return tuple(sorted({max(1, extent // 4), max(1, extent // 2), extent}))


def _places(
    dimension: str, declared: Mapping[str, Sequence[int | str]]
) -> tuple[tuple[str, int], ...]:
    name, _, axis = dimension.rpartition(".")
    symbol: int | str = dimension
    places: dict[tuple[str, int], None] = {}
    if name in declared and axis.isdigit() and int(axis) < len(declared[name]):
        symbol = declared[name][int(axis)]
        places[name, int(axis)] = None
    if isinstance(symbol, str) and symbol:
        places |= {
            (n, i): None for n, dims in declared.items() for i, d in enumerate(dims) if d == symbol
        }
    if not places or any(isinstance(declared[n][i], int) for n, i in places):
        known = {n: [d or "?" for d in dims] for n, dims in declared.items()}
        raise UserError(f"no open dimension {dimension!r}: name one or give INPUT.AXIS of {known}")
    return tuple(places)


def _shape(
    name: str,
    dims: Sequence[int | str],
    given: tuple[int, ...] | None,
    batch: int,
    chosen: Mapping[tuple[str, int], int],
) -> tuple[int, ...]:
    shape = []
    for axis, dim in enumerate(dims):
        extent = chosen.get((name, axis))
        if extent is None and given is not None and axis < len(given):
            extent = given[axis]
        if extent is None:
            extent = dim if isinstance(dim, int) else batch if axis == 0 else None
        if extent is None:
            raise UserError(f"input {name!r} leaves dimension {axis} open: give its shape")
        shape.append(extent)
    return tuple(shape)


def lower_plans(
    graphs: Sequence[Graph],
    cpu: CpuTarget,
    cores: int,
    schedules: Schedules,
    batch: int,
    together: Sequence[int],
    variants: int = 1,
    grains: Sequence[Fraction] = (),
) -> tuple[list[Lowered], Weights]:
    """All plans, those of the first graph first; one request at a time first in each. The first of
    all has up to `variants` ways to run. `grains`: of each graph (`Schedules.grain`)."""
    weights = Weights()
    plans: list[Lowered] = []
    for graph, grain in zip(graphs, grains or [Fraction(0)] * len(graphs), strict=True):
        schedules.grain = grain
        if len(together) > 1:
            check_batchable(graph)
        program = lower(graph, cpu, cores, schedules)
        for requests in together:
            many = program if requests == 1 else batched(program, requests, cpu.caches.l2_bytes)
            if variants > 1 and not plans and requests == 1:
                others = alternatives(graph, cpu, cores, program, schedules, variants - 1)
                memory = plan_memory(others.union, weights)
                plans.append(Lowered(graph, program, memory, batch, 1, others.ways))
            else:
                plans.append(Lowered(graph, many, plan_memory(many, weights), batch, requests))
    return plans, weights


def read_graphs(
    model: str | Path | ModelProto, batch: int, shapes: Sequence[Shapes | None]
) -> list[Graph]:
    """The rewritten graph for each of `shapes`. Raises UserError."""
    return [rewrite(load_graph(model, batch=batch, shapes=one)) for one in shapes]


def kernels(plans: Sequence[Lowered]) -> list[Kernel]:
    """Every distinct kernel once."""
    own = [operator for plan in plans for operator in plan.program.operators]
    others = [operator for plan in plans for way in plan.ways for operator in way.values()]
    return list({operator.kernel.key: operator.kernel for operator in own + others}.values())


def families(plans: Sequence[Lowered]) -> dict[str, str]:
    """Kernels by the first operator that each is for: those of one operator in several buckets may
    differ in extents only. Nothing where there is one bucket."""
    found: dict[str, str] = {}
    if all(plan.graph is plans[0].graph for plan in plans):
        return found
    for plan in plans:
        for operator in plan.program.operators:
            found.setdefault(operator.kernel.key, operator.name)
    return found


def try_padding(manifest: Manifest, axes: Sequence[Axes], folder: Path) -> Padding | None:
    """How requests between two buckets may be padded, if that changes no result."""
    plans = [plan for plan in manifest.plans if plan.batch == manifest.plans[0].batch]
    if len(axes) != 1 or len(plans) < 2:
        return None
    name, axis = axes[0].places[0]
    plans.sort(key=lambda plan: _extent(plan, name, axis))
    cuts = _cuts(plans, [_extent(plan, name, axis) for plan in plans])
    if cuts is None:
        return None
    padding = Padding(axes[0].places, cuts)
    bundle = load_bundle(folder, verify=False)
    runners = [Runner(bundle, plan) for plan in plans]
    for short, long in itertools.pairwise(runners):
        for seed in range(_SEEDS):
            inputs = random_inputs(short.plan.inputs, seed)
            extent = _extent(short.plan, name, axis)
            exact = short.run(inputs)
            got = long.run(padded_to(long.plan, inputs))
            for output, where in padding.outputs:
                got[output] = got[output].take(range(extent), where)
            if not all(_alike(got[key], exact[key]) for key in exact):
                return None
    return padding


def _extent(plan: Plan, name: str, axis: int) -> int:
    return next(tensor.shape[axis] for tensor in plan.inputs if tensor.name == name)


def _cuts(plans: Sequence[Plan], extents: Sequence[int]) -> tuple[tuple[str, int], ...] | None:
    """Output axes that follow the bucket; None if one follows it in another way."""
    cuts = []
    for same in zip(*(plan.outputs for plan in plans), strict=True):
        for axis, along in enumerate(zip(*(tensor.shape for tensor in same), strict=True)):
            if len(set(along)) > 1:
                if list(along) != list(extents):
                    return None
                cuts.append((same[0].name, axis))
    return tuple(cuts)


def _alike(got: np.ndarray, exact: np.ndarray) -> bool:
    if got.shape != exact.shape:
        return False
    scale = float(np.max(np.abs(exact), initial=1e-30))
    return float(np.max(np.abs(got - exact), initial=0.0)) <= _TOLERANCE * scale
