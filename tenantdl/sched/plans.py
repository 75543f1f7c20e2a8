"""What the scheduler is told of a compiled plan."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from tenantdl.bundle.manifest import Plan
from tenantdl.errors import UserError
from tenantdl.sched.config import Batches, PlanSpec, VariantSpec, one_core_plan
from tenantdl.units import SECOND

_UNDISTURBED = 1000


def compiled_batches(plans: Sequence[Plan]) -> tuple[Batches, ...]:
    """Which of a bundle's plans run requests of the same shapes together."""
    alike: dict[tuple[object, ...], dict[int, int]] = {}
    for number, plan in enumerate(plans):
        tensors = (*plan.inputs, *plan.outputs)
        if any(tensor.shape[:1] != (plan.batch,) for tensor in tensors):
            continue  # not a request in each place of the first axis
        shapes = tuple((tensor.name, tensor.shape[1:]) for tensor in plan.inputs)
        alike.setdefault(shapes, {}).setdefault(plan.batch, number)
    return tuple(
        Batches(tuple(sorted(sizes)), tuple(sizes[size] for size in sorted(sizes)))
        for sizes in alike.values()
        if len(sizes) > 1 and min(sizes) == 1
    )


def compiled_plan(plan: Plan) -> PlanSpec:
    """A bundle's plan with its variants and their measured costs. A variant that was also measured
    beside a neighbour that writes memory is slowed down in proportion to the pressure; what its
    own pressure is only a profile can tell (`SlowdownsLearned`)."""
    if not plan.variants:
        return one_core_plan(tuple(segment.cost_ns for segment in plan.segments))
    # Policies suppose the same core counts for all variants of a plan.
    counts = tuple(c for c in plan.variants[0].cores if all(c in v.cores for v in plan.variants))
    return PlanSpec(
        tuple(
            VariantSpec(
                cores=counts,
                costs=tuple(variant.cost_ns[variant.cores.index(c)] for c in counts),
                slowdowns=_slowdowns(variant.cost_ns[0], variant.pressed_ns),
            )
            for variant in plan.variants
        )
    )


def core_load(load: float, plan: PlanSpec) -> int:
    """Core time that `load` requests a second for `plan` take, in 1/1000 of a core; at least 1."""
    widths, costs = plan.variants[0].cores, plan.variants[0].costs
    return max(1, round(1000 * load * widths[0] * sum(costs[0]) / SECOND))


def narrowed(spec: PlanSpec, cores: tuple[int, ...]) -> PlanSpec:
    """`spec` with costs on these numbers of cores only; as it is where none is named. Raises
    UserError when nothing is left."""
    if not cores:
        return spec
    known = spec.variants[0].cores
    kept = [index for index, count in enumerate(known) if count in cores]
    if not kept:
        raise UserError(f"no costs on {list(cores)} cores: compiled for {list(known)}")
    return PlanSpec(
        tuple(
            msgspec.structs.replace(
                variant,
                cores=tuple(variant.cores[i] for i in kept),
                costs=tuple(variant.costs[i] for i in kept),
            )
            for variant in spec.variants
        )
    )


def slowed(spec: PlanSpec, narrow: float, wide: float) -> PlanSpec:
    """`spec` where everything takes `narrow` times as long on the fewest cores, `wide` times on
    more."""
    if narrow == wide == 1:
        return spec
    return PlanSpec(
        tuple(
            msgspec.structs.replace(
                variant,
                costs=tuple(
                    tuple(round(cost * (wide if place else narrow)) for cost in row)
                    for place, row in enumerate(variant.costs)
                ),
            )
            for variant in spec.variants
        )
    )


def _slowdowns(alone: tuple[int, ...], pressed: tuple[int, ...]) -> tuple[int, ...]:
    if not pressed:
        return (_UNDISTURBED,)
    full = _UNDISTURBED * sum(pressed) // max(1, sum(alone))
    return (_UNDISTURBED, max(_UNDISTURBED, full))
