"""A backend of lanes without kernels, to measure what everything around blocks costs. The bundle's
path says how many segments a program has: `idle:SEGMENTS`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tenantdl.bundle.manifest import Plan, Segment, Tensor
from tenantdl.exec import cores as _cores
from tenantdl.exec.programs import Program
from tenantdl.ids import CoreId

Array = NDArray[Any]


def idle_plan(segments: int) -> Plan:
    """A plan of `segments` segments that do nothing, with one number in and out."""
    tensor = Tensor("x", "float32", (1,), 0)
    parts = tuple(Segment(i, i + 1, 1000) for i in range(segments))
    return Plan(1, 64, (tensor,), (tensor,), (), parts, "estimated")


class IdleProgram:
    """Runs nothing."""

    def __init__(self, segments: int) -> None:
        self._count = segments
        self._output = np.zeros(1, np.float32)

    @property
    def segment_count(self) -> int:
        """Number of segments."""
        return self._count

    def set_inputs(self, inputs: Mapping[str, Array]) -> None:
        """Nothing."""

    def run_block(self, begin: int, end: int, variant: int = 0) -> None:
        """Nothing."""

    def outputs(self) -> Mapping[str, Array]:
        """A zero."""
        return {"x": self._output}

    def gather(self, row: int, inputs: Mapping[str, Array]) -> None:
        """Nothing."""

    def scatter(self, row: int) -> Mapping[str, Array]:
        """A zero."""
        return {"x": self._output}


def pin(cores: Sequence[CoreId]) -> None:
    """Keep this process on `cores`."""
    _cores.pin(cores)


def choose(cores: Sequence[CoreId]) -> None:
    """Blocks to come run on these."""
    _cores.group().choose(cores)


def rest() -> None:
    """There are no helpers."""


def open_programs(
    bundle: str, plans: Sequence[tuple[int, Sequence[memoryview]]]
) -> list[list[Program]]:
    """For each plan and arena: a program."""
    segments = int(bundle.partition(":")[2])
    return [[IdleProgram(segments) for _ in arenas] for _, arenas in plans]
