"""A workload file planned: queues, slots, batches, cores, and what to expect (simulated).

Tenants of one bundle may share queues (merging over Harpagon's slots); applications are planned as
DAGs. Prices are cores: a slot of two costs two.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from tenantdl.errors import UserError
from tenantdl.load.workload import TenantSection, Workload
from tenantdl.machine import usable_cores
from tenantdl.plan.dag import Application, ApplicationPlan, Module, slack
from tenantdl.plan.exact import solve_exact
from tenantdl.plan.explain import why_infeasible, why_not_cheaper
from tenantdl.plan.margin import hold, simulated
from tenantdl.plan.merging import best_grouping
from tenantdl.plan.provision import Group, Tenant, by_rate, slots, total_rate
from tenantdl.plan.search import search
from tenantdl.plan.simulate import Promise
from tenantdl.plan.tables import Profile, bundle_profile, merged, read_table, table_of


@dataclass(frozen=True, slots=True)
class WhatIf:
    """What to assume instead: so many cores, rates and targets times a factor."""

    cores: int | None = None
    rate: float = 1.0
    slo: float = 1.0


@dataclass(frozen=True)
class Planned:
    """One application, or one queue that tenants of a model share. `margin`: how much more than
    the rate it is planned for; `bound`: proven least cost, if asked for."""

    name: str
    tenants: tuple[Tenant, ...]
    application: Application
    plan: ApplicationPlan
    margin: float = 0.0
    bound: float | None = None

    @cached_property
    def expected(self) -> Promise:
        """What it holds of its promise when requests come at random (simulated)."""
        return simulated(self.application, self.plan)

    def budgets(self) -> list[float]:
        """Each module's latency budget in seconds, with the slack that nobody uses."""
        count = len(self.application.modules)
        return [slack(self.application, self.plan.latencies, m) for m in range(count)]


@dataclass(frozen=True, slots=True)
class WorkloadPlan:
    """All of a workload. `cores`: how many there are."""

    name: str
    cores: int
    planned: tuple[Planned, ...] = field(default=())

    @property
    def cost(self) -> float:
        """Cores needed, fractions counting."""
        return sum(each.plan.cost for each in self.planned)

    def verdict(self) -> str:
        """One line: whether it fits, and what takes most."""
        if self.cost <= self.cores:
            return f"fits: {self.cost:.2f} of {self.cores} cores"
        largest = max(self.planned, key=lambda each: each.plan.cost)
        return (
            f"does not fit: {self.cost:.2f} cores needed, {self.cores} there,"
            f" {self.cost - self.cores:.2f} too many; {largest.name} takes most"
            f" ({largest.plan.cost:.2f})"
        )


def plan_workload(
    workload: Workload, what_if: WhatIf, *, exact: bool = False, share: float | None = None
) -> WorkloadPlan:
    """Plan every application and every model's tenants. `share`: raise the planned rate until this
    share of Poisson arrivals is within the target (simulated). Raises UserError for a missing
    profile, and for a target that cannot be met: which, and by how much."""
    cores = what_if.cores or len(workload.machine.cores) or len(usable_cores())
    tables: dict[str, Profile] = {}
    for path in workload.profiles:
        tables = read_table(Path(path)) | tables
    source = _Source(workload, tables, cores)
    planned = [
        _planned(application, (), exact, share)
        for application in _applications(workload, what_if, source)
    ]
    for model, tenants in _by_model(workload, what_if).items():
        planned += _queues(model, tenants, source, exact, share)
    return WorkloadPlan(workload.name, cores, tuple(planned))


@dataclass(frozen=True, slots=True)
class _Source:
    """Where modules' tables come from: profile tables by name first, then bundles."""

    workload: Workload
    tables: Mapping[str, Profile]
    cores: int

    def module(self, name: str, rate: float, model: str | None, bundle: str | None) -> Module:
        """A module called `name`, of a model in the tables or of a bundle (whose table, if its name
        has one, counts first, and suffices where the bundle is yet to be compiled)."""
        profiles = []
        if bundle is not None:
            folder = Path(self.workload.bundles) / bundle
            model = folder.stem
            if folder.is_dir() or model not in self.tables:
                profiles = [bundle_profile(folder)]
                model = profiles[0].model
        if model is not None and model in self.tables:
            profiles.insert(0, self.tables[model])
        if not profiles:
            known = ", ".join(sorted(self.tables)) or "none"
            raise UserError(f"no profile of {model!r}; profiles: {known}", where=name)
        table = table_of(merged(profiles), cores_max=self.cores)
        if not table:
            raise UserError(f"no profile of {model!r} on {self.cores} cores or fewer", where=name)
        return Module(name, rate, table)


def _applications(workload: Workload, what_if: WhatIf, source: _Source) -> list[Application]:
    return [
        Application(
            section.name,
            tuple(
                source.module(
                    own.name, section.rate * own.fan_out * what_if.rate, own.model, own.bundle
                )
                for own in section.module
            ),
            section.edges(),
            section.slo_ms / 1000 * what_if.slo,
        )
        for section in workload.application
    ]


def _by_model(workload: Workload, what_if: WhatIf) -> dict[str, list[Tenant]]:
    rates = workload.rates()
    found: dict[str, list[Tenant]] = {}

    def tenant(own: TenantSection) -> Tenant:
        return Tenant(own.name, own.qos_ms / 1000 * what_if.slo, rates[own.name] * what_if.rate)

    for own in workload.tenant:
        found.setdefault(workload.bundle_of(own), []).append(tenant(own))
    return found


def _queues(
    bundle: str, tenants: list[Tenant], source: _Source, exact: bool, share: float | None
) -> list[Planned]:
    table = source.module(bundle, 1.0, None, bundle).table
    for tenant in tenants:
        alone = _queue(bundle, (tenant,), table)
        if search(alone) is None:
            raise UserError(why_infeasible(alone), where=f"tenant {tenant.name}")
    grouping = best_grouping(tenants, by_rate(slots(bundle, table)))
    groups = [] if grouping is None else [group for group, _ in grouping.groups]
    return [_planned(_queue(bundle, group, table), group, exact, share) for group in groups]


def _queue(bundle: str, group: Group, table: Any) -> Application:
    name = " + ".join(tenant.name for tenant in group)
    budget = min(tenant.slo_s for tenant in group)
    return Application(name, (Module(bundle, total_rate(group), table),), (), budget)


def _planned(application: Application, group: Group, exact: bool, share: float | None) -> Planned:
    if share is None:
        plan, margin = search(application), 0.0
    else:
        held = hold(application, share)
        plan, margin = (None, 0.0) if held is None else (held.plan, held.margin)
    if plan is None:
        raise UserError(why_infeasible(application), where=f"application {application.name}")
    bound = None
    if exact:
        solved = solve_exact(application, plan)
        bound = None if solved is None else solved.bound
        if solved is not None and not margin and solved.plan.cost < plan.cost * (1 - 1e-6):
            plan = solved.plan
    return Planned(application.name, group, application, plan, margin, bound)


def describe(planned: WorkloadPlan) -> dict[str, Any]:
    """All of a plan as plain data, for JSON. Times are milliseconds; expected ones simulated."""
    return {
        "format": 1,
        "workload": planned.name,
        "cores": planned.cores,
        "cost_cores": planned.cost,
        "fits": planned.cost <= planned.cores,
        "verdict": planned.verdict(),
        "plans": [_described(each) for each in planned.planned],
    }


def _described(planned: Planned) -> dict[str, Any]:
    expected = planned.expected
    modules = []
    for module, own, budget in zip(
        planned.application.modules, planned.plan.modules, planned.budgets(), strict=True
    ):
        longest = max(tier.configuration.duration_s for tier in own.tiers)
        modules.append(
            {
                "module": module.name,
                "rate": module.rate,
                "dummy_rate": own.dummy,
                "latency_ms": own.latency_s * 1000,
                "budget_ms": budget * 1000,
                "cost_cores": own.cost,
                "slots": [
                    {
                        "slot": tier.configuration.hardware,
                        "batch": tier.configuration.batch,
                        "batch_ms": tier.configuration.duration_s * 1000,
                        "full": tier.full,
                        "fraction": tier.fraction,
                        "timeout_ms": (budget - tier.configuration.duration_s) * 1000,
                    }
                    for tier in own.tiers
                ],
                "tenant_timeouts_ms": {
                    tenant.name: (tenant.slo_s - longest) * 1000 for tenant in planned.tenants
                },
                "why_not_cheaper": why_not_cheaper(module.table, own, budget),
            }
        )
    return {
        "name": planned.name,
        "tenants": [tenant.name for tenant in planned.tenants],
        "slo_ms": planned.application.slo_s * 1000,
        "cost_cores": planned.plan.cost,
        "margin": planned.margin,
        "proven_bound_cores": planned.bound,
        "expected_poisson_simulated": {
            "within_slo": expected.within,
            "p95_ms": expected.p95_s * 1000,
            "p99_ms": expected.p99_s * 1000,
        },
        "modules": modules,
    }
