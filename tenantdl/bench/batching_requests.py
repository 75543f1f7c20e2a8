"""The requests that a bundle is asked with by `bench batching`.

Of a bundle with several lengths, requests have log-uniform ones, as texts and lines of print have:
short ones are frequent, long ones do the work.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tenantdl.bundle.manifest import Manifest, Plan, Tensor

_LENGTHS = 16  # different ones of a dynamic model


def request_plans(manifest: Manifest, seed: int) -> list[tuple[Tensor, ...]]:
    """Inputs of the different requests that the model is asked with, equally often."""
    single = [plan for plan in manifest.plans if plan.batch == manifest.plans[0].batch]
    if len(single) == 1:
        return [single[0].inputs]
    rng = np.random.default_rng(seed)
    sizes = sorted(_length(plan) for plan in single)
    drawn = np.exp(rng.uniform(np.log(sizes[0] / 2), np.log(sizes[-1]), _LENGTHS))
    if manifest.padding is None:
        drawn = np.array([min((s for s in sizes if s >= d), default=sizes[-1]) for d in drawn])
    return [_of_length(single, manifest, max(1, int(d))) for d in drawn]


def _length(plan: Plan) -> int:
    return max(int(np.prod(tensor.shape, dtype=np.int64)) for tensor in plan.inputs)


def _of_length(plans: Sequence[Plan], manifest: Manifest, size: int) -> tuple[Tensor, ...]:
    plan = min((p for p in plans if _length(p) >= size), key=_length)
    if manifest.padding is None:
        return plan.inputs
    share = size / _length(plan)
    cut: list[Tensor] = []
    for tensor in plan.inputs:
        shape = list(tensor.shape)
        for name, axis in manifest.padding.inputs:
            if name == tensor.name:
                shape[axis] = max(1, round(shape[axis] * share))
        cut.append(Tensor(tensor.name, tensor.dtype, tuple(shape), 0))
    return tuple(cut)
