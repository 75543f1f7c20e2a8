"""A workload on a machine under a policy: one run, and what came out of it. All simulated."""

from __future__ import annotations

import dataclasses
import heapq
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from msgspec import UNSET

from tenantdl.errors import UserError
from tenantdl.ids import ModelId, RequestId, TenantId
from tenantdl.load.arrivals import Shape, arrive
from tenantdl.load.workload import TenantSection, Workload
from tenantdl.predict.footprint import Footprint
from tenantdl.sched.config import RESERVE, ModelSpec, PlanSpec, SchedulerConfig, TenantSpec
from tenantdl.sched.messages import RequestArrived
from tenantdl.sched.plans import core_load, narrowed, slowed
from tenantdl.sim.engine import Observer, Outcome, Simulation
from tenantdl.sim.execution import ExecutionModel
from tenantdl.sim.footprints import footprints
from tenantdl.sim.machines import MachineFile
from tenantdl.sim.profiles import VERSIONS, bundle_plan, input_bytes, profile
from tenantdl.units import US, Ns, from_ms, to_ms

Row = dict[str, Any]
Tables = Mapping[ModelId, Sequence[tuple[int, tuple[int, ...]]]]
# Requests of a run, unless its duration is given: enough for a 95 % share to within a point.
REQUESTS = 1500
# Of a normal distribution, the 95th percentile; a stream of random numbers beside the tenants'.
_P95_DEVIATIONS, _FRONT_STREAM = 1.645, 1 << 20


@dataclass(frozen=True, slots=True)
class Scenario:
    """What is run. `scale`, `versions`: see `profiles.profile`. `contention`: of `CONTENTION`.
    `tables`: what the scheduler is told of models' variants in place of what their profiles say:
    (pressure, slowdowns) of each (`sched.config.VariantSpec`)."""

    workload: Workload
    machine: MachineFile
    policy: str
    rate: float
    seed: int = 1
    requests: int = REQUESTS
    scale: float = 1.0
    contention: str = "linear"
    versions: int = VERSIONS
    tables: Tables | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """A scenario and its outcome. `latencies_ms` of answered requests by tenant; `attainment`:
    share of all requests answered within their target, overall and by tenant."""

    scenario: Scenario
    latencies_ms: dict[str, list[float]]
    attainment: float
    by_tenant: dict[str, float]
    outcome: Outcome

    @property
    def least(self) -> float:
        """The attainment of the tenant that is served worst."""
        return min(self.by_tenant.values(), default=1.0)

    def row(self, qps_at_95: float | None = None) -> Row:
        """Plain data, as `tenantdl simulate --json` writes it."""
        every = np.array([t for values in self.latencies_ms.values() for t in values])
        outcome, counts = self.outcome, self.outcome.counts
        p95, p99 = (np.percentile(every, q) if len(every) else None for q in (95, 99))
        return {
            "workload": self.scenario.workload.name,
            "machine": self.scenario.machine.name,
            "policy": self.scenario.policy,
            "seed": self.scenario.seed,
            "qps_at_95": qps_at_95,
            "mean_latency_ms": _rounded(every.mean() if len(every) else None),
            "p95_ms": _rounded(p95),
            "p99_ms": _rounded(p99),
            "core_usage": _rounded(outcome.core_time / max(1, outcome.end)),
            "conflict_rate": _rounded(counts.conflicts / max(1, counts.launches)),
            "rate": self.scenario.rate,
            "attainment": _rounded(self.attainment),
            "attainment_least": _rounded(self.least),
            "attainment_by_tenant": {name: _rounded(v) for name, v in self.by_tenant.items()},
            "core_ms": _rounded(to_ms(outcome.core_time) / max(1, len(outcome.answers))),
            "label": "simulated",
        }


def run(
    scenario: Scenario,
    *,
    observer: Observer | None = None,
    keep_spans: bool = False,
    misses_max: int | None = None,
) -> Result:
    """Simulate a scenario, up to `misses_max` late or refused requests. Raises UserError for models
    without a profile."""
    config = scheduler_config(scenario)
    model = ExecutionModel(scenario.machine, config, scenario.contention, _footprints(scenario))
    simulation = Simulation(
        config,
        model,
        seed=scenario.seed,
        observer=observer,
        keep_spans=keep_spans,
        misses_max=misses_max,
    )
    return _result(scenario, simulation.run(_arrivals(scenario)))


def scheduler_config(scenario: Scenario) -> SchedulerConfig:
    """What the scheduler is told: as a daemon would tell it of its own machine."""
    workload, machine = scenario.workload, scenario.machine
    options, rates = workload.scheduler, workload.rates(scenario.rate)
    plans = {model_of(workload, t): _plan(workload, t, scenario) for t in workload.tenant}
    loads = {
        t.name: core_load(rates[t.name], plans[model_of(workload, t)]) for t in workload.tenant
    }
    return SchedulerConfig(
        policy=scenario.policy,
        lanes=machine.lanes(),
        models=tuple(ModelSpec(name, (plan,)) for name, plan in plans.items()),
        tenants=tuple(
            TenantSpec(
                TenantId(tenant.name),
                tenant.queue_max,
                tenant.arenas,
                share=round(1000 * (tenant.core_share or 0)),
                load=0 if tenant.share is tenant.rate is UNSET else loads[tenant.name],
                model=model_of(workload, tenant),
                qos=from_ms(tenant.qos_ms),
                requests_ks=round(1000 * rates[tenant.name]),
            )
            for tenant in workload.tenant
        ),
        block_target=workload.block_target(machine.ahead),
        blocks_max=options.blocks_max,
        refuse_infeasible=options.refuse_infeasible,
        domains=machine.domains(),
        overheads=machine.overheads(),
        ahead=machine.ahead,
        reserve=RESERVE if machine.ahead else 0,
    )


def model_of(workload: Workload, tenant: TenantSection) -> ModelId:
    """What the model that `tenant` mostly calls is named here."""
    name = tenant.profile or tenant.model or Path(workload.bundle_of(tenant)).stem
    return ModelId(name)


def _plan(workload: Workload, tenant: TenantSection, scenario: Scenario) -> PlanSpec:
    if tenant.profile:
        machine, name = scenario.machine, tenant.profile
        plan = profile(name, machine.contention, scenario.scale, scenario.versions)
        return plan if scenario.tables is None else _told(plan, scenario.tables[ModelId(name)])
    plan = narrowed(bundle_plan(workload.bundle_path(tenant)), workload.scheduler.cores)
    machine, name = scenario.machine, str(model_of(workload, tenant))
    narrow = machine.slower.get(name, 1.0)
    return slowed(plan, narrow, machine.slower_wide.get(name, narrow))


def _told(plan: PlanSpec, tables: Sequence[tuple[int, tuple[int, ...]]]) -> PlanSpec:
    return PlanSpec(
        tuple(
            msgspec.structs.replace(variant, pressure=pressure, slowdowns=slowdowns)
            for variant, (pressure, slowdowns) in zip(plan.variants, tables, strict=True)
        )
    )


def _footprints(scenario: Scenario) -> dict[ModelId, tuple[Footprint, ...]]:
    names = {tenant.profile for tenant in scenario.workload.tenant if tenant.profile}
    return {ModelId(name): footprints(name, scenario.versions) for name in sorted(names)}


def _arrivals(scenario: Scenario) -> Iterator[tuple[Ns, RequestArrived]]:
    """All tenants' requests in the order of their times; a seed of its own for every tenant."""
    workload = scenario.workload
    load, rates = workload.load, workload.rates(scenario.rate)
    duration_s = scenario.requests / sum(rates.values())
    shape = Shape(load.burstiness, load.trace, load.pace)
    streams = []
    for number, tenant in enumerate(workload.tenant):
        rng = np.random.default_rng((scenario.seed, number))
        times = arrive(load.arrivals, rates[tenant.name], duration_s, rng, shape)
        streams.append([(int(at), number) for at in times.tolist()])
    for count, (at, number) in enumerate(heapq.merge(*streams), 1):
        tenant = workload.tenant[number]
        qos = from_ms(tenant.qos_ms)
        patience = from_ms(tenant.timeout_ms or max(10 * tenant.qos_ms, 1000.0))
        yield (
            Ns(at),
            RequestArrived(
                RequestId(count),
                TenantId(tenant.name),
                model_of(workload, tenant),
                0,
                Ns(at + min(qos, patience)),
                Ns(at + patience),
                tenant.priority,
            ),
        )


def _result(scenario: Scenario, outcome: Outcome) -> Result:
    names = [tenant.name for tenant in scenario.workload.tenant]
    latencies: dict[str, list[float]] = {name: [] for name in names}
    asked, in_time = dict.fromkeys(names, 0), dict.fromkeys(names, 0)
    bytes_ns = {
        t.name: moving(scenario.machine, scenario.workload, t) for t in scenario.workload.tenant
    }
    for answer, front in zip(outcome.answers, _fronts(scenario, len(outcome.answers)), strict=True):
        name = str(answer.arrived.tenant)
        asked[name] += 1
        if answer.finished is not None:
            seen = answer.finished + front + bytes_ns[name]
            latencies[name].append(to_ms(Ns(seen - answer.at)))
            in_time[name] += seen <= answer.arrived.deadline
    return Result(
        scenario=scenario,
        latencies_ms=latencies,
        attainment=sum(in_time.values()) / max(1, sum(asked.values())),
        by_tenant={name: in_time[name] / max(1, asked[name]) for name in names},
        outcome=outcome,
    )


def _fronts(scenario: Scenario, count: int) -> list[int]:
    """Ns that each of so many requests spends outside the lanes: as a client sees it, it is so much
    later. Lognormal, by the median and the 95th percentile."""
    machine = scenario.machine
    spread = 0.0
    if machine.request_p95_us > machine.request_us > 0:
        spread = math.log(machine.request_p95_us / machine.request_us) / _P95_DEVIATIONS
    draws = np.random.default_rng((scenario.seed, _FRONT_STREAM)).normal(0.0, spread, count)
    return [round(machine.request_us * US * factor) for factor in np.exp(draws).tolist()]


def moving(machine: MachineFile, workload: Workload, tenant: TenantSection) -> int:
    """Ns for the bytes of a request's inputs, on their way to the lanes. Raises UserError."""
    rate = machine.request_mb_us
    if not rate or tenant.profile:
        return 0
    return round(rate * input_bytes(workload.bundle_path(tenant)) / 1e6 * US)


def at_rate(scenario: Scenario, rate: float) -> Scenario:
    """The same scenario at another rate. Raises UserError if every tenant has a rate of its own."""
    if all(tenant.rate is not UNSET for tenant in scenario.workload.tenant):
        raise UserError("every tenant has its own rate: none is left to share out")
    return dataclasses.replace(scenario, rate=rate)


def _rounded(value: Any) -> float | None:
    return None if value is None else round(float(value), 6)
