"""The plan, followed: what requests may run together, and when each stage of an application should
be done; and planned anew when rates drift.

The planner sets caps and targets only: batches, who shares a queue, what a queue's slots add up to
(a tenant far over them goes last while others wait), and deadlines of stages. Requests that wait or
run keep what they came with, so that nothing is dropped when a plan changes. Planning takes
milliseconds and is done in a thread.
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

# Where a tenant leaves it open when its batches start: when they are as large as planned, else as
# late as their deadlines allow, which is what a plan's latencies stand for.
_UNDECIDED, _PLANNED = "auto", "target-batch"


@dataclass(frozen=True, slots=True)
class Terms:
    """What a plan asks of the daemon, by tenant: how large batches are at most, which queue is
    shared with others (none: ""), and how much of a core its slots are (1/1000). `tails`: by stage,
    how long before the application's deadline it should be done."""

    batch_max: dict[TenantId, int]
    queues: dict[TenantId, str]
    loads: dict[TenantId, int]
    tails: dict[TenantId, Ns]


class Followed(Protocol):
    """What follows the plan (`engine.Engine`)."""

    catalogue: Catalogue
    statistics: Statistics

    def tell(self, event: TenantDeclared) -> None:
        """Other terms for a tenant."""


def terms_of(planned: WorkloadPlan) -> Terms:
    """The largest batch in each module's or queue's plan, who shares a queue, and what slots cost;
    and what the modules behind one take by the plan, along the longest way."""
    terms = Terms({}, {}, {}, {})
    for each in planned.planned:
        modules = each.plan.modules
        largest = [max(tier.configuration.batch for tier in own.tiers) for own in modules]
        loads = [round(1000 * own.cost) for own in modules]
        for tenant in each.tenants:
            name = TenantId(tenant.name)
            terms.batch_max[name], terms.loads[name] = largest[0], loads[0]
            terms.queues[name] = each.name if len(each.tenants) > 1 else ""
        if not each.tenants:
            behind = _tails(each.application, each.plan)
            for number, module in enumerate(each.application.modules):
                name = stage_name(each.name, module.name)
                terms.batch_max[name], terms.loads[name] = largest[number], loads[number]
                terms.queues[name], terms.tails[name] = "", behind[number]
    return terms


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
        more = WhatIf(rate=1 + self._section.margin)
        try:
            planned = await asyncio.to_thread(plan_workload, workload, more)
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
            declared = tenant_spec(workload, catalogue, name)
            most = min(most, declared.batch_max)
            waits = most > 1 and declared.batching == _UNDECIDED
            spec = msgspec.structs.replace(
                declared,
                batch_max=most,
                queue=terms.queues[name] if declared.batching else "",
                load=terms.loads[name],
                batching=_PLANNED if waits else declared.batching,
            )
            self._engine.tell(TenantDeclared(spec))
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
