"""Profiles: what the simulator and the simulated scheduler know of a model.

Three sources, never mixed within one model:
  published   layer times of VELTAIR's artefact (`data/README.md`); core counts between and below
              the published ones follow the scaling model, pinned to the nearest published time
  shapes      the layers are known, their times come from the scaling model; on all 64 cores they
              are as much slower than on 56 as the only layers published for both
  bundle      measured segments of a compiled model, for one core

Variants (MODEL, not measured): the paper compiles every layer in up to five versions between
locality and parallelism, and publishes only ranges: under heavy interference a locality-greedy
version of one convolution lost up to 7×, a modest one 1.5×. `frontier` spreads versions over what
lies between for an average layer: the greedy one is fastest alone, suffers and disturbs most. The
greedy one's sensitivity is chosen so that whole models of ResNet-50 miss their target at 50 and 100
requests a second about as often as the paper shows.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tenantdl.bundle.load import read_manifest
from tenantdl.errors import UserError
from tenantdl.sched.config import PlanSpec, VariantSpec
from tenantdl.sched.plans import compiled_plan
from tenantdl.sim import scaling
from tenantdl.units import US

CORE_COUNTS = (1, 2, 4, 8, 16, 24, 32, 40, 48, 56, 64)
LEVELS = 5


class Version(NamedTuple):
    """`alone`: time relative to the version that is fastest alone. `sensitivity`: added time, where
    all other cores run the greediest version. `pressure`: on others, relative to that version's."""

    alone: float
    sensitivity: float
    pressure: float


# From greedy to modest.
_FRONTIER = (
    Version(1.00, 1.10, 1.00),
    Version(1.01, 0.70, 0.85),
    Version(1.03, 0.42, 0.72),
    Version(1.05, 0.25, 0.60),
    Version(1.08, 0.14, 0.50),
)

VERSIONS = len(_FRONTIER)


def frontier(count: int = VERSIONS) -> tuple[Version, ...]:
    """`count` versions spread evenly over the frontier; one alone is the greediest."""
    places = np.linspace(0.0, len(_FRONTIER) - 1.0, count) if count > 1 else [0.0]
    knots = np.arange(len(_FRONTIER))
    return tuple(
        Version(
            *(float(np.interp(place, knots, column)) for column in zip(*_FRONTIER, strict=True))
        )
        for place in places
    )


SHAPES_ONLY = ("bert_large", "efficientnet_b0", "mobilenet_v2", "ssd_resnet34", "tiny_yolov2")
KNOWN = tuple(sorted((*scaling.PUBLISHED, *SHAPES_ONLY)))


def profile(
    name: str, contention: float = 1.0, scale: float = 1.0, versions: int = VERSIONS
) -> PlanSpec:
    """The plan of a model out of `KNOWN`; a layer is a segment. `contention` multiplies all
    sensitivities; `scale` the part of the scaling model that does not shrink with more cores;
    `versions`: how many. Raises UserError."""
    if name not in KNOWN:
        raise UserError(f"profile {name!r} is unknown; known: {', '.join(KNOWN)}")
    micros = _times(name, scale)
    return PlanSpec(
        tuple(
            VariantSpec(
                cores=CORE_COUNTS,
                costs=tuple(
                    tuple(max(1, round(time * version.alone * US)) for time in column)
                    for column in micros.T.tolist()
                ),
                slowdowns=slowdowns(version, contention),
                pressure=round(1000 * version.pressure),
            )
            for version in frontier(versions)
        )
    )


def slowdowns(version: Version, contention: float) -> tuple[int, ...]:
    """Slowdowns in 1/1000 at `LEVELS` pressures from none to full."""
    steps = [level / (LEVELS - 1) for level in range(LEVELS)]
    return tuple(round(1000 * (1 + contention * version.sensitivity * step)) for step in steps)


def bundle_plan(bundle: Path, plan: int = 0) -> PlanSpec:
    """A plan of a compiled model. Raises UserError."""
    return compiled_plan(read_manifest(bundle).plans[plan])


def input_bytes(bundle: Path) -> int:
    """Of a request for the bundle's first plan. Raises UserError."""
    sizes = [
        int(np.prod(tensor.shape)) * np.dtype(tensor.dtype).itemsize
        for tensor in read_manifest(bundle).plans[0].inputs
    ]
    return sum(sizes)


@lru_cache(maxsize=64)
def _times(name: str, scale: float) -> scaling.Array:
    """Layer times in µs [layers, CORE_COUNTS]."""
    coefficients = scaling.fit().copy()
    coefficients[2:] *= scale
    work = scaling.layers(name)
    model = scaling.predict(work, CORE_COUNTS, coefficients)
    whole, nearly = CORE_COUNTS.index(64), CORE_COUNTS.index(56)
    if name not in scaling.PUBLISHED:
        model[:, whole] = model[:, nearly] * scaling.all_cores()
        return model
    counts, known = scaling.published(name)
    columns = []
    if counts[-1] < CORE_COUNTS[-1]:
        counts = (*counts, CORE_COUNTS[-1])
        known = np.column_stack([known, known[:, -1] * scaling.all_cores()])
    for index, count in enumerate(CORE_COUNTS):
        near = min(range(len(counts)), key=lambda i: abs(counts[i] - count))
        reference = scaling.predict(work, (counts[near],), coefficients)[:, 0]
        columns.append(known[:, near] * model[:, index] / reference)
    return np.stack(columns, axis=1)
