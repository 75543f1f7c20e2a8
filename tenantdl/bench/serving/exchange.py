"""One inference over HTTP, for servers around runtimes: the daemon's own wire format."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from tenantdl.bench.serving.runtimes import Array
from tenantdl.load import protocol
from tenantdl.load.protocol import HEADER_LENGTH, InferResponse


async def received(request: Request) -> tuple[str, dict[str, Array]]:
    """The id of a request, and its inputs. Raises UserError."""
    length = request.headers.get(HEADER_LENGTH)
    body = await request.body()
    message, binary = protocol.decode_request(memoryview(body), int(length or len(body)))
    return message.id, protocol.tensors(message, binary)


def answered(model: str, number: str, outputs: dict[str, Array]) -> Response:
    """The answer to request `number`, all outputs as bytes."""
    response = InferResponse(model, "1", [], id=number)
    chunks, header = protocol.encode_response(response, outputs, frozenset(outputs))
    return Response(
        b"".join(chunks),
        media_type="application/octet-stream",
        headers={HEADER_LENGTH: str(header)},
    )
