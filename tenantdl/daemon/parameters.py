"""What a request's headers and parameters ask for. All raise UserError for nonsense."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tenantdl.daemon.catalogue import ServedModel
from tenantdl.daemon.observe.ended import Origin
from tenantdl.daemon.stages import ServedApplication
from tenantdl.errors import UserError
from tenantdl.ids import TenantId
from tenantdl.load.protocol import HEADER_BYTES_MAX, HEADER_LENGTH, InferRequest
from tenantdl.units import US, Ns

_ID_MAX = 128


def header_length(text: str | None) -> int | None:
    """The length of a message's JSON from its header `text`; None where there is none."""
    if text is None:
        return None
    if not (text.isascii() and text.isdigit()) or int(text) > HEADER_BYTES_MAX:
        raise UserError(f"{text!r} is not a length", where=HEADER_LENGTH)
    return int(text)


def timeout(message: InferRequest) -> Ns | None:
    """The parameter `timeout`, in microseconds; 0 is none, as in Triton."""
    micros = _integer(message.parameters, "timeout")
    return Ns(micros * US) if micros else None


def priority(message: InferRequest) -> int | None:
    """The parameter `priority`, None where it is absent or 0: lower goes first."""
    return _integer(message.parameters, "priority") or None


def origin(message: InferRequest, headers: Mapping[str, str]) -> Origin:
    """What the client calls its request (the message's id, else the header `x-request-id`), and its
    trace; cut to a length that logs bear."""
    name = message.id or headers.get("x-request-id", "")
    return Origin(name[:_ID_MAX], headers.get("traceparent", "")[:_ID_MAX])


def tenant(message: InferRequest, model: ServedModel | ServedApplication) -> TenantId:
    """The parameter `tenant`, by default the model's first."""
    name = message.parameters.get("tenant", model.tenants[0])
    if name not in model.tenants:
        raise UserError(f"tenant {name!r} does not use model {model.name}: {list(model.tenants)}")
    return TenantId(name)


def outputs(
    message: InferRequest, model: ServedModel | ServedApplication
) -> tuple[list[str], frozenset[str]]:
    """Names of the wanted outputs (default: all), and which of them as bytes."""
    known = model.output_names()
    everywhere = bool(message.parameters.get("binary_data_output", False))
    if not message.outputs:
        return known, frozenset(known if everywhere else ())
    binary: set[str] = set()
    for output in message.outputs:
        if output.name not in known:
            raise UserError(f"unknown output {output.name!r}; model {model.name} has {known}")
        if output.parameters.get("binary_data", everywhere):
            binary.add(output.name)
    return [output.name for output in message.outputs], frozenset(binary)


def _integer(parameters: Mapping[str, Any], name: str) -> int | None:
    value = parameters.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**63:
        raise UserError(f"parameter {name!r} must be a whole number, not {value!r}")
    return value
