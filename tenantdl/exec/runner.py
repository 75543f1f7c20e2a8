"""Execute a plan: a list of kernel calls whose arguments were bound once.

Nothing is allocated and no graph is walked while serving. A runner owns one activation arena; a
parked request keeps its runner, so a tenant has a few of them over one bundle.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tenantdl.bundle.library import Array, Calls, KernelCall
from tenantdl.bundle.load import LoadedBundle
from tenantdl.bundle.manifest import (
    Argument,
    Call,
    Plan,
    Segment,
    Tensor,
    calls_of,
    variant_count,
)
from tenantdl.bundle.memory import allocate
from tenantdl.errors import ExecutionError, UserError
from tenantdl.exec.cores import group


class Runner:
    """One arena bound to one plan. Not thread-safe: one request at a time."""

    def __init__(
        self, bundle: LoadedBundle, plan: Plan | None = None, arena: memoryview | None = None
    ) -> None:
        """Bind `plan` (default: the bundle's first) to `arena`: zeroed memory of `plan.arena_bytes`
        or more, 64-byte aligned, which other processes may map too. Default: fresh memory."""
        self.plan = bundle.manifest.plans[0] if plan is None else plan
        self._bundle = bundle
        self._arena = (
            allocate(self.plan.arena_bytes) if arena is None else np.frombuffer(arena, np.uint8)
        )
        steps = [_steps(segment) for segment in self.plan.segments]
        self._steps = [step for own in steps for step in own]
        # Where each segment's steps begin.
        self._starts = [0, *accumulate(len(own) for own in steps)]
        self._calls = [self._bind(calls_of(self.plan, v)) for v in range(variant_count(self.plan))]
        self._inputs = {t.name: (t, self._view(t)) for t in self.plan.inputs}
        self._outputs = {t.name: self._view(t) for t in self.plan.outputs}

    @property
    def segment_count(self) -> int:
        """Number of segments: the valid block boundaries are 0 … segment_count."""
        return len(self.plan.segments)

    def set_inputs(self, inputs: Mapping[str, Array]) -> None:
        """Copy `inputs` (name → array of the plan's shape and dtype) into the arena.

        Raises UserError for a missing, unknown, misshaped or mistyped input.
        """
        for name in inputs.keys() - self._inputs.keys():
            raise UserError(f"unknown input {name!r}; the model has {sorted(self._inputs)}")
        for name, (tensor, view) in self._inputs.items():
            if name not in inputs:
                raise UserError(f"input {name!r} is missing")
            value = np.asarray(inputs[name])
            if value.dtype != view.dtype:
                raise UserError(f"input {name!r} has dtype {value.dtype}, needs {tensor.dtype}")
            if value.shape != view.shape:
                raise UserError(
                    f"input {name!r} has shape {list(value.shape)}, needs {list(tensor.shape)}"
                )
            view[...] = value

    def gather(self, row: int, inputs: Mapping[str, Array]) -> None:
        """Copy the inputs of one request (their first extent is 1) into the arena, as the `row`-th
        of those that this plan runs together."""
        for name, (_, view) in self._inputs.items():
            view[row] = inputs[name][0]

    def scatter(self, row: int) -> dict[str, Array]:
        """Views of the `row`-th request's outputs."""
        return {name: view[row : row + 1] for name, view in self._outputs.items()}

    def run_block(self, begin: int, end: int, variant: int = 0) -> None:
        """Run segments [begin, end) in `variant` on the calling thread's core group."""
        if begin == end:
            return
        first, last = self._starts[begin], self._starts[end]
        try:
            self._calls[variant].run(first, last, group().pool(self._bundle.library))
        except ExecutionError as error:
            raise ExecutionError(f"{self._bundle.manifest.name}: {error}") from error

    def outputs(self) -> dict[str, Array]:
        """Copies of the outputs."""
        return {name: view.copy() for name, view in self._outputs.items()}

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """All segments for one set of inputs."""
        self.set_inputs(inputs)
        self.run_block(0, self.segment_count)
        return self.outputs()

    def time_ns(self, variant: int = 0) -> list[int]:
        """Run all calls of `variant` once; how long each took."""
        times = [0] * len(self.plan.calls)
        taken = self._calls[variant].time_ns(group().pool(self._bundle.library))
        for step, ns in zip(self._steps, taken, strict=True):
            times[step.call] += ns
        return times

    def _bind(self, calls: Sequence[Call]) -> Calls:
        spaces = {"arena": self._arena, "weights": self._bundle.weights}
        arrays = [[_argument(spaces[a.space], a) for a in call.args] for call in calls]
        bound = [
            KernelCall(calls[step.call].symbol, arrays[step.call], step.part, step.parts)
            for step in self._steps
        ]
        return Calls(self._bundle.library, bound)

    def _view(self, tensor: Tensor) -> Array:
        return _slice(self._arena, tensor.arena_offset, tensor.shape, tensor.dtype)


class _Step(NamedTuple):
    """A call, or a part of it."""

    call: int
    part: int = 0
    parts: int = 1


def _steps(segment: Segment) -> list[_Step]:
    if segment.parts > 1:
        return [_Step(segment.begin, segment.part, segment.parts)]
    return [_Step(call) for call in range(segment.begin, segment.end)]


def _argument(space: NDArray[np.uint8], argument: Argument) -> Array:
    return _slice(space, argument.offset, argument.shape, argument.dtype)


def _slice(space: NDArray[np.uint8], offset: int, shape: tuple[int, ...], dtype: str) -> Array:
    kind = np.dtype(dtype)
    nbytes = kind.itemsize * int(np.prod(shape, dtype=np.int64))
    return space[offset : offset + nbytes].view(kind).reshape(shape)
