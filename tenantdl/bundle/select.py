"""Which plan of a bundle takes given inputs, exactly or padded; inputs padded, outputs cut back.

A plan for more requests takes fewer (the rest are zeros: requests are independent). Along the
bundle's `padding` axes shorter inputs take the next longer plan.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tenantdl.bundle.manifest import Padding, Plan

Array = NDArray[Any]
Shapes = Mapping[str, tuple[int, ...]]


_FOUND_MAX = 256


class Fit(NamedTuple):
    """Plan number `plan` takes the inputs: `requests` of them, `extent` long along the padding
    axes (0: there are none)."""

    plan: int
    requests: int
    extent: int


class Selector:
    """Finds plans by input shapes."""

    def __init__(self, plans: Sequence[Plan], padding: Padding | None) -> None:
        self.plans = tuple(plans)
        self.padding = padding
        self._axes: Mapping[str, list[int]] = {}
        # What was found before: most requests are alike.
        self._found: dict[tuple[tuple[str, tuple[int, ...]], ...], Fit] = {}
        if padding:
            self._axes = {
                name: [a for n, a in padding.inputs if n == name] for name, _ in padding.inputs
            }
        several = len({plan.batch for plan in plans}) > 1
        tensors = [(plan, t) for plan in plans for t in (*plan.inputs, *plan.outputs)]
        # What has a request in each place of its first axis, where there are plans for several.
        self._stacked = {t.name for _, t in tensors} if several else set()
        self._stacked -= {t.name for plan, t in tensors if t.shape[:1] != (plan.batch,)}
        keyed = [(self._key(shapes_of(plan)), number) for number, plan in enumerate(self.plans)]
        self._by_size = sorted(keyed, key=lambda pair: (pair[0][2], pair[0][1], pair[1]))

    def find(self, shapes: Shapes) -> Fit | None:
        """The smallest plan that takes inputs of `shapes`; None if none does."""
        key = tuple(shapes.items())
        found = self._found.get(key)
        if found is None:
            found = self._find(shapes)
            if found is not None and len(self._found) < _FOUND_MAX:
                self._found[key] = found
        return found

    def _find(self, shapes: Shapes) -> Fit | None:
        if shapes.keys() != {tensor.name for tensor in self.plans[0].inputs}:
            return None
        rest, requests, extent = self._key(shapes)
        if requests < 0 or extent < 0:
            return None
        for (other, requests_max, extent_max), number in self._by_size:
            if other == rest and requests_max >= requests and extent_max >= extent:
                return Fit(number, requests, extent)
        return None

    def _key(self, shapes: Shapes) -> tuple[tuple[tuple[str, tuple[int, ...]], ...], int, int]:
        """What has to be equal, requests, extent; −1 where inputs disagree about these."""
        rest: list[tuple[str, tuple[int, ...]]] = []
        requests: set[int] = set()
        extents: set[int] = set()
        for name, shape in sorted(shapes.items()):
            kept = list(shape)
            for axis in self._axes.get(name, ()):
                if axis < len(kept):
                    extents.add(kept[axis])
                    kept[axis] = -1
            if name in self._stacked and kept:
                requests.add(kept[0])
                kept[0] = -1
            rest.append((name, tuple(kept)))
        return tuple(rest), _only(requests, 1), _only(extents, 0)

    def cut(self, fit: Fit, outputs: Mapping[str, Array]) -> dict[str, Array]:
        """Of the plan's outputs, what belongs to the inputs that were given."""
        found = {}
        for name, array in outputs.items():
            if name in self._stacked and array.shape[0] != fit.requests:
                array = array[: fit.requests]
            for output, axis in self.padding.outputs if self.padding else ():
                if output == name and array.shape[axis] != fit.extent:
                    array = array[(slice(None),) * axis + (slice(0, fit.extent),)]
            found[name] = array
        return found


def shapes_of(plan: Plan) -> dict[str, tuple[int, ...]]:
    """Input name → shape."""
    return {tensor.name: tensor.shape for tensor in plan.inputs}


def padded_to(plan: Plan, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """`inputs` with zeros behind, in the shapes of `plan`."""
    found = {}
    for tensor in plan.inputs:
        array = inputs[tensor.name]
        if array.shape != tensor.shape:
            full = np.zeros(tensor.shape, array.dtype)
            full[tuple(slice(0, extent) for extent in array.shape)] = array
            array = full
        found[tensor.name] = array
    return found


def _only(values: set[int], default: int) -> int:
    return default if not values else next(iter(values)) if len(values) == 1 else -1
