"""Who runs on fewer cores than its target needs gets them at the next end of a launch, before less
urgent work goes on there."""

from __future__ import annotations

from tenantdl.ids import CoreId, LaneId, ModelId, RequestId, TenantId
from tenantdl.sched.config import (
    LaneSpec,
    ModelSpec,
    PlanSpec,
    SchedulerConfig,
    TenantSpec,
    VariantSpec,
    one_core_plan,
)
from tenantdl.sched.messages import RequestArrived
from tenantdl.sim.engine import Outcome, Simulation
from tenantdl.sim.execution import ExecutionModel
from tenantdl.sim.machines import MachineFile
from tenantdl.units import MS, Ns

MACHINE = MachineFile(
    name="two",
    source="declared",
    cores=2,
    domain_cores=2,
    socket_cores=2,
    bandwidth_gbs=20.0,
    handover_us=33.0,
    boundary_us=1.0,
    resize_us=33.0,
    conflict_us=33.0,
    migrate_us=33.0,
)
# 30 ms on one core, 16 on two.
WIDE = PlanSpec((VariantSpec((1, 2), ((3 * MS,) * 10, (8 * MS // 5,) * 10)),))


def run(wide_target_ms: int) -> Outcome:
    """Bulk work that fills both cores until 240 ms, and a wide request that arrives after 10."""
    config = SchedulerConfig(
        policy="tenantdl",
        lanes=tuple(LaneSpec(LaneId(i), (CoreId(i),)) for i in range(2)),
        models=(
            ModelSpec(ModelId("bulk"), (one_core_plan((3 * MS // 2,) * 4),)),
            ModelSpec(ModelId("wide"), (WIDE,)),
        ),
        tenants=(TenantSpec(TenantId("bulk"), 99, 99), TenantSpec(TenantId("wide"), 8, 8)),
    )

    def arrival(number: int, name: str, at: int, target: int) -> tuple[Ns, RequestArrived]:
        deadline = Ns((at + target) * MS)
        model, tenant = ModelId(name), TenantId(name)
        expires = Ns(10_000 * MS)
        event = RequestArrived(RequestId(number), tenant, model, 0, deadline, expires, 0)
        return Ns(at * MS), event

    bulk = [arrival(number, "bulk", 0, 1000) for number in range(1, 81)]
    simulation = Simulation(config, ExecutionModel(MACHINE, config), seed=1, keep_spans=True)
    return simulation.run([*bulk, arrival(99, "wide", 10, wide_target_ms)])


def test_a_wide_request_gets_both_cores_of_a_full_machine() -> None:
    outcome = run(wide_target_ms=29)  # one core takes 30
    answers = {answer.arrived.request: answer for answer in outcome.answers}
    wide = answers[RequestId(99)]
    assert len(answers) == 81
    assert wide.finished is not None
    assert wide.finished <= wide.arrived.deadline
    cores = [len(s.launch.cores) for s in outcome.spans if s.launch.request == RequestId(99)]
    assert cores[-1] == 2


def test_nobody_yields_to_a_request_that_has_time_on_one_core() -> None:
    outcome = run(wide_target_ms=200)
    spans = [span for span in outcome.spans if span.launch.request == RequestId(99)]
    assert {len(span.launch.cores) for span in spans if span.begin < 230 * MS} == {1}
    assert outcome.core_time < 81 * 6.2 * MS + 31 * MS


def test_an_empty_machine_is_used_even_if_that_costs_core_time() -> None:
    dear = PlanSpec((VariantSpec((1, 2), ((3 * MS,) * 10, (9 * MS // 4,) * 10)),))  # half as much
    config = SchedulerConfig(
        policy="tenantdl",
        lanes=MACHINE.lanes(),
        models=(ModelSpec(ModelId("dear"), (dear,)),),
        tenants=(TenantSpec(TenantId("t"), 8, 8),),
    )

    deadline = Ns(200 * MS)
    only = RequestArrived(RequestId(1), TenantId("t"), ModelId("dear"), 0, deadline, deadline, 0)
    simulation = Simulation(config, ExecutionModel(MACHINE, config), seed=1, keep_spans=True)
    outcome = simulation.run([(Ns(0), only)])
    assert {len(span.launch.cores) for span in outcome.spans} == {2}
