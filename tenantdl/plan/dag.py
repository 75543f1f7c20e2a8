"""Applications: models joined to a DAG, with an end-to-end latency target and a rate.

A module sees the application's rate times its fan-out (mean calls a request, such as crops an
image). The target holds along every path from a module without predecessors to one without
successors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from tenantdl.errors import UserError
from tenantdl.plan.module import ModulePlan
from tenantdl.plan.profile import Table

MODULES_MAX = 64
PATHS_MAX = 1024


@dataclass(frozen=True, slots=True)
class Module:
    """A model of an application and the requests a second that reach it."""

    name: str
    rate: float
    table: Table


@dataclass(frozen=True)
class Application:
    """`edges`: pairs (before, after) of module numbers. Raises UserError for a cycle, an edge to
    nowhere, an empty table or figures that are not positive."""

    name: str
    modules: tuple[Module, ...]
    edges: tuple[tuple[int, int], ...]
    slo_s: float

    def __post_init__(self) -> None:
        count = len(self.modules)
        if not 1 <= count <= MODULES_MAX or not self.slo_s > 0:
            raise UserError("an application needs modules and a latency target", where=self.name)
        for module in self.modules:
            if not module.rate > 0 or not module.table:
                raise UserError(f"{module.name} needs a rate and a profile", where=self.name)
        if any(not (0 <= a < count and 0 <= b < count) for a, b in self.edges):
            raise UserError("an edge leads to a module that is not there", where=self.name)
        _ = self.paths

    @cached_property
    def paths(self) -> tuple[tuple[int, ...], ...]:
        """Every way from a first module to a last one, as module numbers."""
        return _paths(self)

    @cached_property
    def beside(self) -> tuple[tuple[tuple[int, ...], ...], ...]:
        """For each module, the others on each path through it."""
        return tuple(
            tuple(tuple(m for m in path if m != module) for path in self.paths if module in path)
            for module in range(len(self.modules))
        )

    @cached_property
    def order(self) -> tuple[int, ...]:
        """Module numbers, each behind its predecessors."""
        depth = [0] * len(self.modules)
        for path in self.paths:
            for place, module in enumerate(path):
                depth[module] = max(depth[module], place)
        return tuple(sorted(range(len(self.modules)), key=lambda m: (depth[m], m)))

    def latency(self, budgets: Sequence[float]) -> float:
        """Length of the critical path, given each module's latency in seconds."""
        return max(sum(budgets[module] for module in path) for path in self.paths)

    def fits(self, budgets: Sequence[float]) -> bool:
        """Whether the target holds; rounding of sums is forgiven."""
        return self.latency(budgets) <= self.slo_s * (1 + 1e-9)


@dataclass(frozen=True, slots=True)
class ApplicationPlan:
    """A module plan for every module of an application, in its order."""

    modules: tuple[ModulePlan, ...]
    planner: str

    @property
    def cost(self) -> float:
        """Price of all machines of all modules."""
        return sum(plan.cost for plan in self.modules)

    @property
    def latencies(self) -> tuple[float, ...]:
        """Worst latency of every module, seconds."""
        return tuple(plan.latency_s for plan in self.modules)


def slack(application: Application, latencies: Sequence[float], module: int) -> float:
    """The latency budget in seconds that the others' latencies leave to a module."""
    most = max(sum([latencies[other] for other in others]) for others in application.beside[module])
    return application.slo_s - most


def scaled(application: Application, rate: float = 1.0, slo: float = 1.0) -> Application:
    """The application with all rates and its target multiplied."""
    modules = tuple(Module(m.name, m.rate * rate, m.table) for m in application.modules)
    return Application(application.name, modules, application.edges, application.slo_s * slo)


def successors(application: Application) -> Mapping[int, tuple[int, ...]]:
    """Module number → the numbers behind it."""
    count = len(application.modules)
    return {m: tuple(sorted({b for a, b in application.edges if a == m})) for m in range(count)}


def _paths(application: Application) -> tuple[tuple[int, ...], ...]:
    after = successors(application)
    targets = {b for _, b in application.edges}
    found: list[tuple[int, ...]] = []
    stack: list[tuple[int, ...]] = [(m,) for m in sorted(after, reverse=True) if m not in targets]
    if not stack:
        raise UserError("its modules form a cycle", where=application.name)
    while stack:
        path = stack.pop()
        if not after[path[-1]]:
            found.append(path)
        for module in reversed(after[path[-1]]):
            if module in path:
                raise UserError("its modules form a cycle", where=application.name)
            stack.append((*path, module))
        if len(found) > PATHS_MAX:
            raise UserError(f"more than {PATHS_MAX} paths", where=application.name)
    reached = {module for path in found for module in path}
    if len(reached) < len(application.modules):
        raise UserError("its modules form a cycle", where=application.name)
    return tuple(sorted(found))
