"""Other kernels for the operators of a plan: what its variants are made of.

The graph is lowered again, once for every further rank of the templates' candidates, with the
borders and panels of the first lowering. Where an operator comes out with another kernel on the
same buffers it is an alternative: it costs no memory but its code. Scratch and other packings of
its weights (Winograd beside direct) are added as long as the bundle does not grow too much. There
is no search: one lowering a rank, and one measurement for all (`variants`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

from tenantdl.compile.graph import Array, Graph
from tenantdl.compile.lower import lower
from tenantdl.compile.operator import Buffer, Operator, Program
from tenantdl.compile.schedules import Schedules
from tenantdl.compile.target import CpuTarget

# Of the plan's distinct kernels, how many may come to them for each way there is to run it.
KERNELS_A_WAY = 0.15
# Of the plan's weights, what other packings may add.
_WEIGHTS_MAX = 0.5
# Operators that do less are left alone: they do not decide anything.
_FLOPS_MIN = 0.002


@dataclass(frozen=True, slots=True)
class Alternatives:
    """`ways[r]`: position → operator in place of the plan's. `union`: the plan's program with all
    buffers of the ways, for placing them in memory; it is never run."""

    ways: tuple[Mapping[int, Operator], ...]
    union: Program


def alternatives(
    graph: Graph, target: CpuTarget, cores: int, program: Program, schedules: Schedules, count: int
) -> Alternatives:
    """Up to `count` more ways to run `program`, which `graph` was lowered to with `schedules`."""
    union = Program(
        list(program.operators),
        dict(program.buffers),
        dict(program.constants),
        list(program.inputs),
        list(program.outputs),
    )
    ways: list[Mapping[int, Operator]] = []
    room = round(KERNELS_A_WAY * count * len({op.kernel.key for op in program.operators}))
    most = _WEIGHTS_MAX if count > 1 else 0.0  # a single one is to cost nothing
    weights = most * sum(array.nbytes for array in program.constants.values())
    known = {op.kernel.key for op in program.operators}
    for rank in range(1, count + 1):
        if room <= 0:
            break
        other = lower(graph, target, cores, schedules.others(rank))
        found: dict[int, Operator] = {}
        for position, operator in _by_work(program, _pairs(program, other, rank)):
            more = _added(operator, union, other, rank)
            new = operator.kernel.key not in known
            if more is None or room < new or weights < more.weights:
                continue
            known.add(operator.kernel.key)
            room, weights = room - new, weights - more.weights
            union.buffers |= more.buffers
            union.constants |= more.constants
            found[position] = replace(operator, args=more.args)
            union.operators[position] = _touching(union, position, more)
        if found:
            ways.append(found)
    return Alternatives(tuple(ways), _constants_last(union))


@dataclass(frozen=True, slots=True)
class _Added:
    """What an alternative brings along: its arguments by their names in the union."""

    args: tuple[str, ...]
    buffers: dict[str, Buffer]
    constants: dict[str, Array]
    weights: int


def _pairs(program: Program, other: Program, rank: int) -> dict[int, Operator]:
    """Position → the operator of `other` that computes the same with another kernel."""
    by_result = {(op.name, op.writes): op for op in other.operators}
    repeated = Counter((op.name, op.writes) for op in other.operators)
    found = {}
    for position, operator in enumerate(program.operators):
        key = (operator.name, operator.writes)
        twin = by_result.get(key)
        if twin is None or repeated[key] > 1 or not operator.choices:
            continue
        if twin.kernel.key != operator.kernel.key:
            found[position] = twin
    return found


def _by_work(program: Program, pairs: Mapping[int, Operator]) -> list[tuple[int, Operator]]:
    """Those that matter, the most arithmetic first, equal kernels together."""
    total = sum(operator.flops for operator in program.operators) or 1
    work: Counter[str] = Counter()
    for operator in pairs.values():
        work[operator.kernel.key] += max(1, operator.flops)
    order = sorted(pairs.items(), key=lambda p: (-work[p[1].kernel.key], p[1].kernel.key, p[0]))
    return [p for p in order if work[p[1].kernel.key] >= _FLOPS_MIN * total]


def _added(operator: Operator, union: Program, other: Program, rank: int) -> _Added | None:
    """None if the operator does not fit into the union's memory as it is."""
    args: list[str] = []
    buffers: dict[str, Buffer] = {}
    readers = Counter(name for op in other.operators for name in set(op.args))
    constants: dict[str, Array] = {}
    weights = 0
    for name in operator.args:
        buffer = other.buffers[name]
        if name in other.constants:
            if name not in union.constants:
                constants[name], buffers[name] = other.constants[name], buffer
                weights += other.constants[name].nbytes
        elif name.startswith("%") and readers[name] == 1:
            if buffer.base is not None or buffer.zeros:
                return None
            name = f"{name}~{rank}"
            buffers[name] = buffer
        elif union.buffers.get(name) != buffer:
            return None
        args.append(name)
    return _Added(tuple(args), buffers, constants, weights)


def _touching(union: Program, position: int, more: _Added) -> Operator:
    """The union's operator there, which reads what is added as well."""
    operator = union.operators[position]
    scratch = tuple(name for name in more.buffers if name not in more.constants)
    return replace(operator, args=(*scratch, *operator.args))


def _constants_last(union: Program) -> Program:
    """Weights lie in the order of first use: those of alternatives come after all others, where
    no prefetch runs into them."""
    used = {name for operator in union.operators for name in operator.args}
    extra = tuple(name for name in union.constants if name not in used)
    if extra:
        last = union.operators[-1]
        union.operators.append(replace(last, name="alternatives", args=extra, n_outputs=0))
    return union
