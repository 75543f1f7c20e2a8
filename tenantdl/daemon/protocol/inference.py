"""Inference, whichever way it is asked for: inputs and parameters checked, outputs put in place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from tenantdl.daemon.calls import Call
from tenantdl.daemon.catalogue import Catalogue, Served
from tenantdl.daemon.door import Door
from tenantdl.daemon.observe.ended import Origin
from tenantdl.daemon.protocol.access import Access, Caller
from tenantdl.daemon.protocol.refusals import ProtocolError
from tenantdl.daemon.protocol.regions import Regions
from tenantdl.daemon.statistics import Statistics, Timing
from tenantdl.errors import UserError
from tenantdl.load.protocol import Array
from tenantdl.load.strings import to_bytes
from tenantdl.units import US, Ns

_CLASSES_MAX = 100_000
_ID_MAX = 128


class Service(Protocol):
    """What is behind the protocol (`tenantdl.daemon.engine.Engine`)."""

    catalogue: Catalogue
    statistics: Statistics
    door: Door

    @property
    def ready(self) -> bool:
        """Whether requests can be served."""

    def stir(self) -> None:
        """A request begins to arrive."""

    async def infer(self, call: Call) -> tuple[dict[str, Array], Timing]:
        """Run one inference. Raises Refused."""


@dataclass(slots=True)
class Gate:
    """What all front ends share: the service, who may use it, and the memory that clients named.
    `bytes_left`: of requests that may be read at once."""

    service: Service
    access: Access
    bytes_left: int
    regions: Regions = field(default_factory=Regions)

    def memory(self, caller: Caller, name: object, offset: object, size: object) -> memoryview:
        """A slice of one of the caller's regions. Raises ProtocolError."""
        return self.regions.slice(caller, name, offset, size)


@dataclass(slots=True)
class Wanted:
    """An output that a client wants: as `binary` or JSON, or the best `classes` of it, or in
    `region` (name, offset, bytes)."""

    name: str
    binary: bool = True
    classes: int = 0
    region: tuple[object, object, object] | None = None


def wanted_output(name: str, parameters: Mapping[str, Any], *, binary: bool) -> Wanted:
    """What a requested output's parameters say; `binary` where they don't. Raises UserError."""
    classes = number(parameters, "classification") or 0
    if classes > _CLASSES_MAX:
        raise UserError(f"output {name!r}: {classes} classes; at most {_CLASSES_MAX}")
    region = None
    if "shared_memory_region" in parameters:
        offset = parameters.get("shared_memory_offset", 0)
        size = parameters.get("shared_memory_byte_size")
        region = (parameters["shared_memory_region"], offset, size)
    return Wanted(name, bool(parameters.get("binary_data", binary)), classes, region)


def all_outputs(model: Served, *, binary: bool) -> list[Wanted]:
    """Every output of `model`."""
    return [Wanted(name, binary) for name in model.output_names()]


def make_call(
    model: Served,
    caller: Caller,
    inputs: Mapping[str, Array],
    parameters: Mapping[str, Any],
    arrived: Ns,
    origin: Origin,
) -> Call:
    """The call that a request asks for. `parameters`: `timeout` in microseconds and `priority`, 0
    for none, as in Triton; `tenant`. Raises UserError and ProtocolError."""
    micros, priority = number(parameters, "timeout"), number(parameters, "priority")
    return Call(
        tenant=caller.tenant_for(model, parameters.get("tenant")),
        model=model.id,
        plan=model.plan_for(inputs),
        inputs=inputs,
        arrived=arrived,
        timeout=Ns(micros * US) if micros else None,
        priority=priority or None,
        origin=origin,
    )


def make_origin(name: str, other_name: str, trace: str) -> Origin:
    """What the client calls its request (`name`, else the header `x-request-id`), and its trace
    (`traceparent`); cut to a length that logs bear."""
    return Origin((name or other_name)[:_ID_MAX], trace[:_ID_MAX])


def check_wanted(model: Served, wanted: Sequence[Wanted]) -> None:
    """Raises ProtocolError for outputs that `model` does not have, or that are there twice."""
    known = model.output_names()
    names = [one.name for one in wanted]
    for name in names:
        if name not in known:
            message = f"unexpected inference output '{name}' for model '{model.name}'"
            raise ProtocolError(400, message)
        if names.count(name) > 1:
            raise ProtocolError(400, f"output '{name}' is asked for twice")


@dataclass(slots=True)
class Placed:
    """Outputs as they go to the client; those `elsewhere` lie in shared memory."""

    arrays: dict[str, Array]
    binary: frozenset[str]
    elsewhere: frozenset[str]


def place_outputs(
    gate: Gate, caller: Caller, outputs: Mapping[str, Array], wanted: Sequence[Wanted]
) -> Placed:
    """Pick the wanted outputs, rank classes, write what belongs into shared memory. Raises
    ProtocolError."""
    binary = frozenset(one.name for one in wanted if one.binary)
    placed = Placed({}, binary, frozenset(one.name for one in wanted if one.region))
    for one in wanted:
        array = outputs[one.name]
        if one.classes:
            array = best_classes(array, one.classes)
        placed.arrays[one.name] = array
        if one.region is not None:
            memory = gate.memory(caller, *one.region)
            raw = memoryview(to_bytes(array))
            if len(raw) > len(memory):
                raise ProtocolError(
                    400,
                    f"shared memory size specified with the request for output '{one.name}' "
                    f"({len(memory)} bytes) should be at least {len(raw)} bytes",
                )
            memory[: len(raw)] = raw
    return placed


def best_classes(array: Array, count: int) -> Array:
    """The classification extension: the `count` largest elements, each as "value:index"."""
    flat = array.ravel()
    best = np.argsort(-flat.astype(np.float64), kind="stable")[:count]
    texts = np.empty(len(best), object)
    form = "{:f}:{}" if array.dtype.kind not in "iub" else "{}:{}"
    texts[:] = [form.format(flat[index].item(), index).encode() for index in best]
    return texts


def number(parameters: Mapping[str, Any], name: str) -> int | None:
    """A parameter that is a whole number, None where it is absent. Raises UserError."""
    value = parameters.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**63:
        raise UserError(f"parameter {name!r} must be a whole number, not {value!r}")
    return value
