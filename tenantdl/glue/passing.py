"""Glue that only passes tensors on: outputs go to the inputs of the same name, else to those of the
same dtype and number of elements, in order. Every module is called once.

The application's inputs are those of its first modules, its outputs those of its last ones.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tenantdl.bundle.manifest import Tensor
from tenantdl.errors import UserError
from tenantdl.glue.work import Array, Calls, Glue, Module, Port, Stage, Tensors, Work


def make(modules: Mapping[str, Module]) -> Glue:
    """Glue for any graph of modules whose tensors fit. Raises UserError where they do not."""
    firsts = [module for module in modules.values() if not module.after]
    behind = {name for module in modules.values() for name in module.after}
    lasts = [module for module in modules.values() if module.name not in behind]
    for module in modules.values():
        if module.after:
            offered = [t for name in module.after for t in modules[name].plans[0].outputs]
            for tensor in module.plans[0].inputs:
                offered.remove(_match(tensor, offered, module.name))
    inputs = _ports([t for module in firsts for t in module.plans[0].inputs])
    return Glue(
        inputs=inputs,
        outputs=_ports([t for module in lasts for t in module.plans[0].outputs]),
        stages={module.name: Stage(_calls_of(module)) for module in modules.values()},
        answer=lambda work: {
            name: array for module in lasts for name, array in work.results[module.name][0].items()
        },
        bytes_max=sum(int(np.prod(port.shape)) * np.dtype(port.dtype).itemsize for port in inputs),
    )


def _ports(tensors: list[Tensor]) -> tuple[Port, ...]:
    if len({tensor.name for tensor in tensors}) < len(tensors):
        raise UserError(f"two tensors of one name: {sorted(t.name for t in tensors)}")
    return tuple(Port(tensor.name, tensor.dtype, tensor.shape) for tensor in tensors)


def _match(tensor: Tensor, offered: list[Tensor], module: str) -> Tensor:
    alike = [t for t in offered if t.dtype == tensor.dtype and _size(t) == _size(tensor)]
    named = [t for t in alike if t.name == tensor.name]
    if not alike:
        given = [f"{t.name} {t.dtype} {list(t.shape)}" for t in offered]
        raise UserError(
            f"nothing before fits input {tensor.name!r} ({tensor.dtype} {list(tensor.shape)}):"
            f" {given or 'nothing left'}",
            where=f"module {module}",
        )
    return (named or alike)[0]


def _size(tensor: Tensor) -> int:
    return int(np.prod(tensor.shape))


def _calls_of(module: Module) -> Calls:
    wanted = module.plans[0].inputs

    def calls(work: Work) -> list[Tensors]:
        if not module.after:
            return [{tensor.name: work.inputs[tensor.name] for tensor in wanted}]
        given = [pair for name in module.after for pair in work.results[name][0].items()]
        found: dict[str, Array] = {}
        for tensor in wanted:
            alike = [
                pair
                for pair in given
                if pair[1].dtype == tensor.dtype and pair[1].size == _size(tensor)
            ]
            chosen = next((pair for pair in alike if pair[0] == tensor.name), alike[0])
            given = [pair for pair in given if pair is not chosen]
            found[tensor.name] = chosen[1].reshape(tensor.shape)
        return [found]

    return calls
