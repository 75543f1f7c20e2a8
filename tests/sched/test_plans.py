"""Compiled plans as the scheduler is told of them."""

from __future__ import annotations

from tenantdl.bundle.manifest import Plan, Segment, Tensor, Variant
from tenantdl.ids import CoreId, LaneId, ModelId, RequestId, TenantId
from tenantdl.sched.config import (
    Batches,
    LaneSpec,
    ModelSpec,
    PlanSpec,
    SchedulerConfig,
    TenantSpec,
    VariantSpec,
    one_core_plan,
)
from tenantdl.sched.messages import LaneReady, Launch, RequestArrived
from tenantdl.sched.plans import compiled_batches, compiled_plan, core_load, slowed
from tenantdl.sched.scheduler import Scheduler
from tenantdl.units import MS, SECOND, Ns


def _plan(*variants: Variant) -> Plan:
    return Plan(1, 64, (), (), (), (Segment(0, 1, 30), Segment(1, 2, 50)), "measured", variants)


def _variant(cores: tuple[int, ...], pressed: tuple[int, ...] = ()) -> Variant:
    costs = tuple((30 // c, 50 // c) for c in cores)
    return Variant("x", (), cores, costs, pressed, (1, 1), (1, 1))


def test_without_variants_one_core_is_known() -> None:
    assert compiled_plan(_plan()) == one_core_plan((30, 50))


def test_variants_bring_costs_by_cores_that_all_have() -> None:
    spec = compiled_plan(_plan(_variant((1, 2, 4)), _variant((1, 2))))
    assert [v.cores for v in spec.variants] == [(1, 2), (1, 2)]
    assert spec.variants[0].costs == ((30, 50), (15, 25))
    assert spec.variants[0].slowdowns == (1000,)


def test_a_pressed_variant_is_slowed_down_and_never_sped_up() -> None:
    spec = compiled_plan(_plan(_variant((1,), (40, 60)), _variant((1,), (20, 20))))
    assert [v.slowdowns for v in spec.variants] == [(1000, 1250), (1000, 1000)]


def test_one_core_and_several_are_slowed_down_apart() -> None:
    spec = PlanSpec((VariantSpec((1, 2, 4), ((40, 20), (30, 10), (20, 10))),))
    (variant,) = slowed(spec, 1.5, 2.0).variants
    assert variant.costs == ((60, 30), (60, 20), (40, 20))
    assert slowed(spec, 1.0, 1.0) == spec


def test_plans_of_equal_shapes_run_requests_together() -> None:
    def plan(batch: int, width: int) -> Plan:
        x = Tensor("x", "float32", (batch, width), 0)
        return Plan(batch, 64, (x,), (x,), (), (Segment(0, 1, 1),), "estimated")

    plans = [plan(1, 8), plan(4, 8), plan(1, 16), plan(2, 8), plan(1, 4), plan(2, 4)]
    found = compiled_batches(plans)
    assert found == (Batches((1, 2, 4), (0, 3, 1)), Batches((1, 2), (4, 5)))
    shared = Tensor("k", "int64", (1,), 0)
    odd = [Plan(b, 64, (shared,), (shared,), (), (Segment(0, 1, 1),), "estimated") for b in (1, 2)]
    assert compiled_batches(odd) == ()


def test_a_share_is_the_core_time_of_the_stated_load() -> None:
    assert core_load(20.0, one_core_plan((3 * MS, 7 * MS))) == 200
    assert core_load(250.0, one_core_plan((10 * MS,))) == 2500
    assert core_load(0.001, one_core_plan((1000,))) == 1


def test_each_number_of_cores_gets_the_variant_that_is_best_on_it() -> None:
    """One variant is soonest on one core, another on two: the deadline decides the cores, the cores
    the variant."""
    variants = (
        VariantSpec((1, 2), ((MS,), (MS * 7 // 10,))),
        VariantSpec((1, 2), ((MS * 11 // 10,), (MS * 6 // 10,))),
    )
    lanes = tuple(LaneSpec(LaneId(i), (CoreId(i),)) for i in range(2))
    config = SchedulerConfig(
        "tenantdl",
        lanes,
        (ModelSpec(ModelId("m"), (PlanSpec(variants),)),),
        (TenantSpec(TenantId("t"), 8, 2),),
    )
    for deadline, cores, variant in ((MS * 8 // 10, 2, 1), (100 * MS, 1, 0)):
        scheduler = Scheduler(config)
        for lane in lanes if cores == 2 else lanes[:1]:
            scheduler.handle(LaneReady(lane.lane), Ns(0))
        arrived = RequestArrived(
            RequestId(1), TenantId("t"), ModelId("m"), 0, Ns(deadline), Ns(SECOND), 0
        )
        (launch,) = scheduler.handle(arrived, Ns(0))
        assert isinstance(launch, Launch)
        assert (len(launch.cores), launch.variant) == (cores, variant)
