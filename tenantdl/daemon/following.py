"""The plan, followed: what requests may run together, and when each stage of an application should
be done; and planned anew when rates drift.

The planner sets caps and targets only. Requests that wait or run keep what they came with, so that
nothing is dropped when a plan changes. Planning takes milliseconds and is done in a thread.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import msgspec

from tenantdl.daemon.catalogue import Catalogue, tenant_spec
from tenantdl.daemon.stages import stage_name, with_stages
from tenantdl.daemon.statistics import Statistics
from tenantdl.errors import UserError
from tenantdl.ids import TenantId
from tenantdl.load.applications import PlanSection
from tenantdl.load.workload import Workload
from tenantdl.plan.dag import Application, ApplicationPlan, successors
from tenantdl.plan.drift import Drift
from tenantdl.plan.workload import WhatIf, WorkloadPlan, plan_workload
from tenantdl.sched.messages import TenantDeclared
from tenantdl.units import Ns, from_seconds

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Terms:
    """What a plan asks of the daemon. `batch_max`: by tenant; `tails`: by stage, how long before
    the application's deadline it should be done."""

    batch_max: Mapping[TenantId, int]
    tails: Mapping[TenantId, Ns]


class Followed(Protocol):
    """What follows the plan (`engine.Engine`)."""

    catalogue: Catalogue
    statistics: Statistics

    def tell(self, event: TenantDeclared) -> None:
        """Other terms for a tenant."""


def terms_of(planned: WorkloadPlan) -> Terms:
    """The largest batch in each module's or queue's plan; and what the modules behind one take by
    the plan, along the longest way."""
    batch_max: dict[TenantId, int] = {}
    tails: dict[TenantId, Ns] = {}
    for each in planned.planned:
        largest = [max(tier.configuration.batch for tier in own.tiers) for own in each.plan.modules]
        for tenant in each.tenants:
            batch_max[TenantId(tenant.name)] = largest[0]
        if not each.tenants:
            behind = _tails(each.application, each.plan)
            for number, module in enumerate(each.application.modules):
                name = stage_name(each.name, module.name)
                batch_max[name], tails[name] = largest[number], behind[number]
    return Terms(batch_max, tails)


def _tails(application: Application, plan: ApplicationPlan) -> list[Ns]:
    after = successors(application)
    tails = [0.0] * len(application.modules)
    for number in reversed(application.order):
        tails[number] = max((plan.latencies[n] + tails[n] for n in after[number]), default=0.0)
    return [from_seconds(tail) for tail in tails]


class Following:
    """Plans `workload` (as its file has it, without stages) and keeps the engine to it."""

    def __init__(self, workload: Workload, section: PlanSection, engine: Followed) -> None:
        self._workload = workload
        self._section = section
        self._engine = engine
        self._seen: dict[str, int] = {}
        self._task: asyncio.Task[None] | None = None
        self.plans = 0

    def start(self) -> None:
        """Plan, and look at the rates from now on. Needs a running loop."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    def close(self) -> None:
        """Stop looking. Idempotent."""
        if self._task:
            self._task.cancel()

    async def _run(self) -> None:
        rates = _rates(self._workload)
        drift = Drift(rates, self._section.drift)
        await self._plan(rates)
        self._arrivals()
        while True:
            await asyncio.sleep(self._section.period_s)
            moved = drift.note(self._arrivals(), self._section.period_s)
            if moved is not None:
                await self._plan(moved)

    async def _plan(self, rates: Mapping[str, float]) -> None:
        workload = _with_rates(self._workload, rates)
        try:
            planned = await asyncio.to_thread(plan_workload, workload, WhatIf())
        except UserError as error:
            _log.warning("no plan, served without one: %s", error)
            return
        self._apply(terms_of(planned), with_stages(workload))
        self.plans += 1
        _log.info("plan %d: %s", self.plans, planned.verdict())

    def _apply(self, terms: Terms, workload: Workload) -> None:
        catalogue = self._engine.catalogue
        for name, most in terms.batch_max.items():
            if name not in catalogue.tenants:
                continue  # gone since
            spec = tenant_spec(workload, catalogue, name)
            most = min(most, spec.batch_max)
            self._engine.tell(TenantDeclared(msgspec.structs.replace(spec, batch_max=most)))
        for key, application in catalogue.applications.items():
            stages = {
                name: dataclasses.replace(stage, tail=terms.tails.get(stage.tenant, stage.tail))
                for name, stage in application.stages.items()
            }
            catalogue.applications[key] = dataclasses.replace(application, stages=stages)

    def _arrivals(self) -> dict[str, int]:
        """Requests of each tenant and application since the last look."""
        statistics = self._engine.statistics
        total = {str(name): inside for name, inside in statistics.queues().items()}
        for (_, _, tenant), served in statistics.served.items():
            done = served.parts["success"].count + sum(served.refused.values())
            total[tenant] = total.get(tenant, 0) + done
        new = {name: count - self._seen.get(name, 0) for name, count in total.items()}
        self._seen = total
        return new


def _rates(workload: Workload) -> dict[str, float]:
    return workload.rates() | {a.name: a.rate for a in workload.application}


def _with_rates(workload: Workload, rates: Mapping[str, float]) -> Workload:
    return msgspec.structs.replace(
        workload,
        tenant=tuple(
            msgspec.structs.replace(t, rate=rates[t.name], share=msgspec.UNSET)
            for t in workload.tenant
        ),
        application=tuple(
            msgspec.structs.replace(a, rate=rates[a.name]) for a in workload.application
        ),
    )
