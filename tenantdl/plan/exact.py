"""The cheapest plan there is, proven: a mixed-integer program solved by HiGHS (through scipy).

Whole machines are integers, fractions and dummies are continuous. The latency d + b/w of a tier is
convex in w, so tangents bound it from below; where a solution lies below the curve another tangent
is added and the program solved again. Every round's optimum is a lower bound of the true one, and
the last solution meets the curve, so both are found. The program looks only for what is cheaper
than a plan that is known; where it has no solution, that plan is proven. Latencies are in units of
the target and rates in units of the module's, since HiGHS's tolerances are absolute.

Without tangents this would take a solver of second-order cone programs with integers; with them
HiGHS does, which is well kept and comes with scipy.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_array

from tenantdl.errors import InvariantError, UserError
from tenantdl.plan.dag import Application, ApplicationPlan, slack
from tenantdl.plan.module import ModulePlan, Tier, plan_of
from tenantdl.plan.profile import Table, ordered, tie_groups

ROUNDS_MAX = 60
TOLERANCE = 2e-6  # of the latency target: HiGHS meets constraints to about 1e-6
_TANGENTS = 6
CHEAPER = 5e-6  # relative: plans that are no more than this cheaper are not looked for
_GAP = 1e-6  # relative: how closely the optimum is proven
_NEGLIGIBLE = 1e-5  # of a machine


@dataclass(frozen=True, slots=True)
class Exact:
    """The best `plan` and a proven lower `bound` of every plan's cost."""

    plan: ApplicationPlan
    bound: float


@dataclass(slots=True)
class _Program:
    """Rows of the program as they are collected: (coefficients by variable, least value)."""

    size: int
    rows: list[tuple[dict[int, float], float]] = field(default_factory=list)

    def add(self, coefficients: dict[int, float], least: float) -> None:
        """Require Σ coefficient·variable ≥ least."""
        self.rows.append((coefficients, least))

    def matrix(self) -> LinearConstraint:
        """All rows as scipy wants them."""
        places = [
            (row, column, value)
            for row, (coefficients, _) in enumerate(self.rows)
            for column, value in coefficients.items()
        ]
        row, column, value = zip(*places, strict=True)
        shape = (len(self.rows), self.size)
        matrix = csr_array((value, (row, column)), shape=shape)
        return LinearConstraint(matrix, np.array([least for _, least in self.rows]), np.inf)


@dataclass(frozen=True, slots=True)
class _Columns:
    """Where one module's variables lie: full machines, partial rates, whether each is used, and the
    module's latency. `full_rate[i]`, `partial_rate[i]`: the rates that collect tier i's batches, as
    coefficients."""

    table: Table
    rate: float
    slo_s: float
    begin: int
    full_rate: tuple[dict[int, float], ...]
    partial_rate: tuple[dict[int, float], ...]

    def collecting(self, tier: int) -> tuple[float, float, float]:
        """Tier's duration, its batch over a rate, and its throughput, all without units."""
        entry = self.table[tier]
        batch = entry.batch / (self.rate * self.slo_s)
        return entry.duration_s / self.slo_s, batch, entry.throughput / self.rate

    @property
    def latency(self) -> int:
        """Column of the module's latency."""
        return self.begin + 4 * len(self.table)

    def column(self, kind: int, tier: int) -> int:
        """Kinds: 0 full machines, 1 partial rate, 2 any full, 3 any partial."""
        return self.begin + kind * len(self.table) + tier


def solve_exact(
    application: Application, known: ApplicationPlan, *, seconds_max: float = 60.0
) -> Exact | None:
    """The cheapest plan of an application, given any `known` one: the program looks for something
    cheaper, and most often the answer is that there is nothing. None if it was not found in time.
    Raises UserError if there is no plan at all."""
    columns = _layout(application)
    size = columns[-1].latency + 1
    program = _Program(size)
    cost_max = known.cost * (1 - CHEAPER)
    # What no module can do without leaves so much for each.
    least = [
        module.rate / own.table[0].ratio
        for module, own in zip(application.modules, columns, strict=True)
    ]
    most = [max(cost_max - sum(least), 0.0) + own for own in least]
    for own, limit, plan in zip(columns, most, known.modules, strict=True):
        _module_rows(program, own, limit)
        _known_tangents(program, own, plan)
    for path in application.paths:
        program.add({columns[m].latency: -1.0 for m in path}, -1.0)
    cost, integrality, upper = _variables(columns, most)
    program.add({int(place): -float(cost[place]) for place in np.flatnonzero(cost)}, -cost_max)
    for _ in range(ROUNDS_MAX):
        with _quiet():
            answer = milp(
                cost,
                integrality=integrality,
                bounds=Bounds(np.zeros(size), upper),
                constraints=program.matrix(),
                options={"mip_rel_gap": _GAP, "time_limit": seconds_max},
            )
        if answer.status == 2:
            return Exact(known, cost_max)
        if answer.x is None or answer.status != 0:
            return None
        if not _cut(program, columns, answer.x):
            plans = tuple(_read(own, answer.x) for own in columns)
            return Exact(ApplicationPlan(plans, "exact"), float(answer.mip_dual_bound))
    raise InvariantError("tangents do not converge", (application.name,))


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what HiGHS prints whatever it is told: on the process's output, not on Python's."""
    libc = ctypes.CDLL(None)
    sys.stdout.flush()
    libc.fflush(None)
    kept = os.dup(1)
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.close(nowhere)
        yield
    finally:
        libc.fflush(None)
        os.dup2(kept, 1)
        os.close(kept)


def _layout(application: Application) -> list[_Columns]:
    columns: list[_Columns] = []
    begin = 0
    shortest = [min(entry.duration_s for entry in m.table) for m in application.modules]
    for module in application.modules:
        room = slack(application, shortest, len(columns))
        table = ordered(entry for entry in module.table if entry.duration_s < room)
        if not table:
            raise UserError("no plan meets the latency target", where=application.name)
        columns.append(_module_columns(table, module.rate, application.slo_s, begin))
        begin += 4 * len(table) + 1
    return columns


def _module_columns(table: Table, rate: float, slo_s: float, begin: int) -> _Columns:
    count = len(table)
    full: list[dict[int, float]] = [{} for _ in table]
    partial: list[dict[int, float]] = [{} for _ in table]
    below: dict[int, float] = {}
    for first, last in reversed(tie_groups(table)):
        for tier in reversed(range(first, last)):
            below = below | {begin + count + tier: 1.0}
            partial[tier] = below
        below = below | {begin + t: table[t].throughput / rate for t in range(first, last)}
        for tier in range(first, last):
            full[tier] = below
    return _Columns(table, rate, slo_s, begin, tuple(full), tuple(partial))


def _module_rows(program: _Program, own: _Columns, cost_max: float) -> None:
    served: dict[int, float] = {}
    for tier in range(len(own.table)):
        _, _, throughput = own.collecting(tier)
        full, partial = own.column(0, tier), own.column(1, tier)
        served |= {full: throughput, partial: 1.0}
        most = cost_max // own.table[tier].price
        program.add({own.column(2, tier): most, full: -1.0}, 0.0)
        program.add({own.column(3, tier): throughput, partial: -1.0}, 0.0)
        span = np.geomspace(throughput / 4, 2 + throughput, _TANGENTS)
        for at in span:
            _tangents(program, own, tier, float(at))
    program.add(served, 1.0)


def _known_tangents(program: _Program, own: _Columns, plan: ModulePlan) -> None:
    """Tangents where a plan touches the curves, since better ones are most likely nearby."""
    tiers = {tier.configuration: tier for tier in plan.tiers}
    below = 0.0
    for number in reversed(range(len(own.table))):
        tier = tiers.get(own.table[number])
        part = tier.fraction * tier.configuration.throughput / own.rate if tier else 0.0
        whole = tier.rate / own.rate if tier else 0.0
        for at in {below + part, below + whole} - {0.0}:
            _tangents(program, own, number, at)
        below += whole


def _tangents(program: _Program, own: _Columns, tier: int, at: float) -> None:
    """Bound the latency by the tangent of d + b/w in w = at, for full and partial machines."""
    _tangent(program, own, tier, 2, own.full_rate[tier], at)
    _tangent(program, own, tier, 3, own.partial_rate[tier], at)


def _tangent(
    program: _Program, own: _Columns, tier: int, used: int, rate: dict[int, float], at: float
) -> None:
    duration, batch, _ = own.collecting(tier)
    row = {column: batch / at**2 * value for column, value in rate.items()}
    row[own.column(used, tier)] = -(duration + 2 * batch / at)
    row[own.latency] = 1.0
    program.add(row, 0.0)


def _variables(
    columns: list[_Columns], cost_max: list[float]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    size = columns[-1].latency + 1
    cost, integrality, upper = np.zeros(size), np.zeros(size), np.full(size, np.inf)
    for own, limit in zip(columns, cost_max, strict=True):
        for tier, configuration in enumerate(own.table):
            full, partial, any_full, any_partial = (own.column(kind, tier) for kind in range(4))
            cost[full] = configuration.price
            cost[partial] = own.rate / configuration.ratio
            integrality[[full, any_full, any_partial]] = 1
            upper[[any_full, any_partial]] = 1
            upper[full] = limit // configuration.price
            upper[partial] = configuration.throughput / own.rate
    return cost, integrality, upper


def _cut(program: _Program, columns: list[_Columns], x: NDArray[np.float64]) -> bool:
    """Add tangents where the solution's latency lies below the curve. True if any was added."""
    added = False
    for own in columns:
        for tier in range(len(own.table)):
            duration, batch, _ = own.collecting(tier)
            for used, rates in ((2, own.full_rate[tier]), (3, own.partial_rate[tier])):
                if x[own.column(used, tier)] < 0.5:
                    continue
                rate = sum(value * x[column] for column, value in rates.items())
                if rate <= 0:
                    continue
                if duration + batch / rate > x[own.latency] + TOLERANCE:
                    _tangent(program, own, tier, used, rates, float(rate))
                    added = True
    return added


def _read(own: _Columns, x: NDArray[np.float64]) -> ModulePlan:
    tiers = []
    for tier, configuration in enumerate(own.table):
        full = round(float(x[own.column(0, tier)]))
        fraction = float(x[own.column(1, tier)]) * own.rate / configuration.throughput
        if fraction >= 1 - _NEGLIGIBLE:
            full, fraction = full + 1, 0.0
        tiers.append(Tier(configuration, full, fraction if fraction > _NEGLIGIBLE else 0.0))
    return plan_of(own.rate, tiers)
