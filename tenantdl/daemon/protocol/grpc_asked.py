"""What a ModelInferRequest asks for. Clients say the same again and again with other tensors, so it
is taken out of a message once: a message that differs from an earlier one in nothing but raw inputs
is known by its bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from tenantdl.daemon.protocol.grpc_messages import Bytes, parse_infer, raw_places, values_of
from tenantdl.daemon.protocol.inference import Wanted, wanted_output
from tenantdl.errors import UserError

# Messages that are remembered, and bytes of each beside its raw inputs; forms of answers.
_FORMS_MAX, _FORM_BYTES_MAX, _HEADS_MAX = 64, 4096, 16


class Given(NamedTuple):
    """An input. `where`: region, offset and size in shared memory; `contents`: its elements where
    they are listed."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    where: tuple[Any, Any, Any] | None
    contents: Any


@dataclass(slots=True)
class Asked:
    """A request but for its raw inputs. `number`: what the client calls it; `outputs`: none named
    means all; `wrong`: what is wrong with them. `heads`: beginnings of answers, by what they depend
    on."""

    model: str
    version: str
    number: str
    parameters: dict[str, Any]
    inputs: list[Given]
    outputs: list[Wanted]
    wrong: str = ""
    heads: dict[tuple[Any, ...], bytes] = field(default_factory=dict)

    def keep(self, key: tuple[Any, ...], head: bytes) -> None:
        """Remember the beginning of an answer."""
        if len(self.heads) >= _HEADS_MAX:
            self.heads.clear()
        self.heads[key] = head


class _Form(NamedTuple):
    """A message: where its raw inputs are, and what is between them."""

    asked: Asked
    raw: list[tuple[int, int]]
    rest: list[tuple[int, int, bytes]]


class Requests:
    """Reads messages."""

    def __init__(self) -> None:
        self._forms: dict[int, list[_Form]] = {}
        self._count = 0

    def read(self, message: memoryview) -> tuple[Asked, Sequence[Bytes]]:
        """What it asks for, and its raw inputs. Raises ProtocolError."""
        for form in self._forms.get(len(message), ()):
            if all(message[begin:end] == known for begin, end, known in form.rest):
                return form.asked, [message[begin:end] for begin, end in form.raw]
        request, raw = parse_infer(message)
        asked = _asked(request)
        places = raw_places(message)
        if places is not None and len(places) == len(raw):
            self._remember(message, asked, places)
        return asked, raw

    def _remember(self, message: memoryview, asked: Asked, places: list[tuple[int, int]]) -> None:
        edges = [0, *(edge for place in places for edge in place), len(message)]
        between = list(zip(edges[::2], edges[1::2], strict=True))
        if sum(end - begin for begin, end in between) > _FORM_BYTES_MAX:
            return
        if self._count >= _FORMS_MAX:
            self._forms.clear()
            self._count = 0
        rest = [(begin, end, bytes(message[begin:end])) for begin, end in between]
        self._forms.setdefault(len(message), []).append(_Form(asked, places, rest))
        self._count += 1


def _asked(request: Any) -> Asked:
    inputs = [_given(tensor) for tensor in request.inputs]
    named = (request.model_name, request.model_version, request.id)
    asked = Asked(*named, values_of(request.parameters), inputs, [])
    try:
        for output in request.outputs:
            parameters = values_of(output.parameters)
            asked.outputs.append(wanted_output(output.name, parameters, binary=True))
    except UserError as error:
        asked.wrong = error.what
    return asked


def _given(tensor: Any) -> Given:
    parameters, where = values_of(tensor.parameters), None
    if "shared_memory_region" in parameters:
        offset = parameters.get("shared_memory_offset", 0)
        size = parameters.get("shared_memory_byte_size")
        where = (parameters["shared_memory_region"], offset, size)
    return Given(tensor.name, tensor.datatype, tuple(tensor.shape), where, tensor.contents)
