"""Open Inference Protocol v2 over HTTP, Triton's dialect. Starlette routes.

Bodies are bounded before memory is taken: by what the model's inputs can need (413), and by the
bytes of all requests being read at once (429). Errors are `{"error": "..."}`.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from tenantdl import __version__
from tenantdl.daemon import parameters
from tenantdl.daemon.calls import Call, Refused
from tenantdl.daemon.catalogue import Catalogue, ServedModel
from tenantdl.daemon.observe import routes as observe
from tenantdl.daemon.observe.observer import Observer
from tenantdl.daemon.stages import ServedApplication
from tenantdl.daemon.statistics import Statistics, Timing
from tenantdl.errors import UserError
from tenantdl.load import protocol
from tenantdl.load.protocol import HEADER_LENGTH, Array, InferResponse
from tenantdl.sched.messages import Reason
from tenantdl.units import Ns

EXTENSIONS = ["binary_tensor_data", "model_configuration", "parameters", "statistics"]
STATUS = {
    Reason.QUEUE_FULL: 429,
    Reason.DEADLINE_INFEASIBLE: 503,
    Reason.EXPIRED: 503,
    Reason.LANE_LOST: 503,
    Reason.EXECUTION_FAILED: 500,
    Reason.CANCELLED: 499,
}
SAID = {
    Reason.QUEUE_FULL: "the tenant's queue is full",
    Reason.DEADLINE_INFEASIBLE: "the deadline cannot be met",
    Reason.EXPIRED: "the request waited too long",
    Reason.LANE_LOST: "the lane that ran the request was lost",
    Reason.EXECUTION_FAILED: "the model failed on this request",
    Reason.CANCELLED: "the client has gone",
}


class Service(Protocol):
    """What is behind the routes (`tenantdl.daemon.engine.Engine`)."""

    catalogue: Catalogue
    statistics: Statistics
    observer: Observer

    @property
    def ready(self) -> bool:
        """Whether requests can be served."""

    async def infer(self, call: Call) -> tuple[dict[str, Array], Timing]:
        """Run one inference. Raises Refused."""


class Front:
    """The routes' handlers and the bytes that they may hold."""

    def __init__(self, service: Service, body_bytes_max: int) -> None:
        self._service = service
        self._bytes_left = body_bytes_max

    def routes(self) -> list[Route]:
        """All routes, the versioned ones too."""
        routes: list[Route] = []
        model = "/v2/models/{model}"
        for prefix in (model, model + "/versions/{version}"):
            routes += [
                Route(prefix + "/infer", self._infer, methods=["POST"]),
                Route(prefix + "/ready", self._model_ready),
                Route(prefix + "/config", self._config),
                Route(prefix + "/stats", self._stats),
            ]
        return [
            *routes,
            Route("/v2/models/stats", self._stats),
            Route(model, self._model),
            Route(model + "/versions/{version}", self._model),
            Route("/v2", self._server),
            Route("/v2/", self._server),
            Route("/v2/health/live", self._live),
            Route("/v2/health/ready", self._ready),
            *observe.routes(self._service),
            *observe.pages(),
        ]

    async def _server(self, request: Request) -> Response:
        return _json({"name": "tenantdl", "version": __version__, "extensions": EXTENSIONS})

    async def _live(self, request: Request) -> Response:
        return Response()

    async def _ready(self, request: Request) -> Response:
        return Response(status_code=200 if self._service.ready else 503)

    async def _model(self, request: Request) -> Response:
        return _json(self._find(request).metadata())

    async def _model_ready(self, request: Request) -> Response:
        self._find(request)
        return Response(status_code=200 if self._service.ready else 503)

    async def _config(self, request: Request) -> Response:
        return _json(self._find(request).config())

    async def _stats(self, request: Request) -> Response:
        named = "model" in request.path_params
        models = [self._find(request)] if named else self._service.catalogue.all()
        return _json({"model_stats": [self._service.statistics.model_stats(m) for m in models]})

    async def _infer(self, request: Request) -> Response:
        arrived = Ns(time.monotonic_ns())
        model = self._find(request)
        if request.headers.get("content-encoding", "identity") != "identity":
            raise HTTPException(415, "compressed requests are not supported")
        header_length = parameters.header_length(request.headers.get(HEADER_LENGTH))
        limit = model.body_bytes_max(binary=header_length is not None)
        declared = request.headers.get("content-length")
        reserved = int(declared) if declared and declared.isdigit() else limit
        if reserved > limit:
            raise HTTPException(413, f"body of {reserved} bytes; model {model.name} takes {limit}")
        if reserved > self._bytes_left:
            raise HTTPException(429, "too many bytes of requests are being read")
        self._bytes_left -= reserved
        try:
            body = await _read(request, limit)
            return await self._answer(request, model, body, header_length, arrived)
        finally:
            self._bytes_left += reserved

    async def _answer(
        self,
        request: Request,
        model: ServedModel | ServedApplication,
        body: bytes,
        header_length: int | None,
        arrived: Ns,
    ) -> Response:
        message, binary = protocol.decode_request(memoryview(body), header_length)
        inputs = protocol.tensors(message, binary)
        call = Call(
            tenant=parameters.tenant(message, model),
            model=model.id,
            plan=model.plan_for(inputs),
            inputs=inputs,
            arrived=arrived,
            timeout=parameters.timeout(message),
            priority=parameters.priority(message),
            origin=parameters.origin(message, request.headers),
        )
        wanted, as_binary = parameters.outputs(message, model)
        outputs, timing = await _unless_gone(request, self._service.infer(call))
        done = time.monotonic_ns()
        response = InferResponse(model.name, model.version, [], id=message.id)
        chosen = {name: outputs[name] for name in wanted}
        chunks, length = protocol.encode_response(response, chosen, as_binary)
        timing.compute_output = time.monotonic_ns() - done
        self._service.statistics.encoded(timing)
        if length is None:
            return Response(chunks[0], media_type="application/json")
        return Response(
            b"".join(chunks),
            media_type="application/octet-stream",
            headers={HEADER_LENGTH: str(length)},
        )

    def _find(self, request: Request) -> ServedModel | ServedApplication:
        name, version = request.path_params["model"], request.path_params.get("version", "")
        model = self._service.catalogue.find(name, version)
        if model is None:
            of = f" version {version!r} of" if version else ""
            raise HTTPException(404, f"unknown{of} model {name!r}")
        return model


def make_app(
    service: Service,
    body_bytes_max: int,
    lifespan: Callable[[Starlette], contextlib.AbstractAsyncContextManager[None]] | None = None,
) -> Starlette:
    """The ASGI application around `service`."""
    return Starlette(
        routes=Front(service, body_bytes_max).routes(),
        lifespan=lifespan,
        exception_handlers={
            HTTPException: _on_http_error,
            UserError: _on_user_error,
            Refused: _on_refusal,
        },
    )


def _json(value: Any) -> Response:
    return Response(msgspec.json.encode(value), media_type="application/json")


def _error(status: int, what: str) -> Response:
    response = _json({"error": what})
    response.status_code = status
    return response


async def _on_http_error(request: Request, error: Exception) -> Response:
    status = getattr(error, "status_code", 500)
    return _error(status, str(getattr(error, "detail", error)))


async def _on_user_error(request: Request, error: Exception) -> Response:
    return _error(400, str(error))


async def _on_refusal(request: Request, error: Exception) -> Response:
    refused = error if isinstance(error, Refused) else Refused(Reason.EXECUTION_FAILED)
    stage = f" (in module {refused.stage})" if refused.stage else ""
    return _error(STATUS[refused.reason], f"{refused.reason.value}: {SAID[refused.reason]}{stage}")


async def _read(request: Request, limit: int) -> bytes:
    """The body; no more than `limit` bytes of it are ever held."""
    chunks: list[bytes] = []
    size = 0
    try:
        async for chunk in request.stream():
            size += len(chunk)
            if size > limit:
                raise HTTPException(413, f"body of more than {limit} bytes")
            chunks.append(chunk)
    except ClientDisconnect as error:
        raise Refused(Reason.CANCELLED) from error
    return b"".join(chunks)


async def _unless_gone(
    request: Request, inference: Coroutine[Any, Any, tuple[dict[str, Array], Timing]]
) -> tuple[dict[str, Array], Timing]:
    """The result of `inference`, which is cancelled if the client hangs up."""
    work = asyncio.ensure_future(inference)
    gone = asyncio.ensure_future(request.receive())
    try:
        await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
        if work.done():
            return work.result()
        raise Refused(Reason.CANCELLED)
    finally:
        work.cancel()
        gone.cancel()
