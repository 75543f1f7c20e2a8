"""Two real lanes, as far as the policy knows, and a request whose target takes both cores."""

from __future__ import annotations

import random

import msgspec

from tenantdl.ids import ModelId, RequestId, TenantId
from tenantdl.sched.config import ModelSpec, PlanSpec, SchedulerConfig, TenantSpec, VariantSpec
from tenantdl.sched.messages import RequestArrived
from tenantdl.sim.engine import Simulation
from tenantdl.sim.execution import ExecutionModel
from tenantdl.units import MS, Ns
from tests.sim.test_claims import MACHINE as TWO_CORES

MACHINE = msgspec.structs.replace(
    TWO_CORES, handover_us=50, boundary_us=3, resize_us=30, conflict_us=0, migrate_us=50
)
# Per model: ms on one core and on two, in so many segments; its target.
MODELS = {"wide": (40.0, 24.0, 40, 29.0), "narrow": (18.0, 14.0, 20, 200.0)}


def in_time(gaps: dict[str, float], seconds: float = 20.0) -> dict[str, float]:
    """Share in time by tenant, of requests that come every so many ms on average."""
    plans = {
        name: PlanSpec(
            (VariantSpec((1, 2), tuple((round(ms * MS / n),) * n for ms in (one, two))),)
        )
        for name, (one, two, n, _) in MODELS.items()
    }
    config = SchedulerConfig(
        policy="tenantdl",
        lanes=MACHINE.lanes(),
        models=tuple(ModelSpec(ModelId(name), (plan,)) for name, plan in plans.items()),
        tenants=tuple(TenantSpec(TenantId(name), 256, 32) for name in MODELS),
        overheads=MACHINE.overheads(),
        ahead=MACHINE.ahead,
    )
    rng = random.Random(7)
    arrivals: list[tuple[Ns, str]] = []
    for name, gap in gaps.items():
        at = 0.0
        while (at := at + rng.uniform(0.8, 1.2) * gap) < seconds * 1000:
            arrivals.append((Ns(round(at * MS)), name))
    events = [
        (
            at,
            RequestArrived(
                RequestId(n), TenantId(name), ModelId(name), 0, due, Ns(due + 500 * MS), 0
            ),
        )
        for n, (at, name) in enumerate(sorted(arrivals), 1)
        for due in (Ns(round(at + MODELS[name][3] * MS)),)
    ]
    outcome = Simulation(config, ExecutionModel(MACHINE, config), seed=1).run(events)
    shares = {name: [0, 0] for name in gaps}
    for answer in outcome.answers:
        done = answer.finished is not None and answer.finished <= answer.arrived.deadline
        shares[str(answer.arrived.tenant)][0] += done
        shares[str(answer.arrived.tenant)][1] += 1
    return {name: good / asked for name, (good, asked) in shares.items()}


def test_both_cores_are_had_in_time_between_narrow_requests() -> None:
    # Three quarters of the machine are in use; a narrow request would take its core for 18 ms.
    shares = in_time({"wide": 200.0, "narrow": 15.0})
    assert shares["wide"] > 0.8
    assert shares["narrow"] == 1.0
