"""What glue is given and what it gives back.

An application's modules run in the order of its graph. Before a module, its stage's `calls` turns
what is known into inputs, one mapping for each call (none at all is fine). As each call ends,
`take` reads the outputs where they lie in shared memory and returns what is worth keeping; the
memory is then used again. `answer` makes the application's outputs of what was kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from numpy.typing import NDArray

from tenantdl.bundle.manifest import Plan

Array: TypeAlias = NDArray[Any]
Tensors: TypeAlias = Mapping[str, Array]


@dataclass(frozen=True, slots=True)
class Port:
    """An input or output of an application. A dimension of −1 may have any extent."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Module:
    """A module as glue knows it: the plans of its bundle, and what its ONNX file says of itself."""

    name: str
    after: tuple[str, ...]
    plans: tuple[Plan, ...]
    metadata: Mapping[str, str]

    def shapes(self, name: str) -> list[tuple[int, ...]]:
        """The shapes that input `name` may have, each once."""
        return list(
            dict.fromkeys(
                tensor.shape for plan in self.plans for tensor in plan.inputs if tensor.name == name
            )
        )


@dataclass(slots=True)
class Work:
    """One request. `results[module]`: what `take` returned for each of its calls, in order.
    `kept`: whatever the functions of one glue want to tell each other."""

    inputs: Tensors
    results: dict[str, list[Any]] = field(default_factory=dict)
    kept: dict[str, Any] = field(default_factory=dict)


Calls = Callable[[Work], Sequence[Tensors]]
Take = Callable[[Work, int, Tensors], Any]
Answer = Callable[[Work], Tensors]


def copied(work: Work, number: int, outputs: Tensors) -> Tensors:
    """Keeps all outputs of call `number`."""
    return {name: array.copy() for name, array in outputs.items()}


@dataclass(frozen=True, slots=True)
class Stage:
    """The glue around one module."""

    calls: Calls
    take: Take = copied


@dataclass(frozen=True, slots=True)
class Glue:
    """All glue of an application. `stages`: by module. `bytes_max`: of a request's inputs in all.
    A function raises UserError for a request that makes no sense."""

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    stages: Mapping[str, Stage]
    answer: Answer
    bytes_max: int


Maker = Callable[[Mapping[str, Module]], Glue]
