"""The routes that need no hurry: everything but inference, and what operators look at."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from tenantdl.daemon.protocol.access import Caller, require_operator
from tenantdl.daemon.protocol.control import Control
from tenantdl.daemon.protocol.inference import Gate
from tenantdl.daemon.protocol.refusals import ProtocolError, as_protocol_error
from tenantdl.errors import UserError

_BODY_BYTES_MAX = 1024**2
Lifespan = Callable[[Starlette], contextlib.AbstractAsyncContextManager[None]]
# What a route does: (caller, path parameters, JSON body) → JSON value, or nothing.
Handler = Callable[[Caller, dict[str, str], dict[str, Any]], Any]


class Front:
    """The handlers. Only health is told to everybody."""

    def __init__(self, gate: Gate, control: Control) -> None:
        self._gate = gate
        self._control = control

    def routes(self) -> list[Route]:
        """All routes, the versioned ones too."""
        c = self._control
        routes = [
            Route("/v2/health/live", self._health(c.live)),
            Route("/v2/health/ready", self._health(c.ready)),
            *self._get("/v2", lambda who, p, b: c.server()),
            *self._get("/v2/", lambda who, p, b: c.server()),
            *self._get("/v2/models/stats", lambda who, p, b: c.statistics(who)),
            *self._post("/v2/repository/index", self._index),
            *self._post("/v2/repository/models/{model}/load", self._load),
            *self._post("/v2/repository/models/{model}/unload", self._unload),
            *self._setting("/v2/logging", lambda who, p, b: c.log_setting(who, b)),
            *self._setting("/v2/trace/setting", lambda who, p, b: c.trace_setting(who, "", b)),
            *self._setting(
                "/v2/models/{model}/trace/setting",
                lambda who, p, b: c.trace_setting(who, p["model"], b),
            ),
            *self._memory(),
        ]
        for prefix in ("/v2/models/{model}", "/v2/models/{model}/versions/{version}"):
            routes += [
                Route(prefix + "/infer", self._infer, methods=["POST"]),
                Route(prefix + "/ready", self._model_ready),
                *self._get(prefix + "/config", lambda who, p, b: c.config(who, *_which(p))),
                *self._get(prefix + "/stats", lambda who, p, b: c.statistics(who, *_which(p))),
                *self._get(prefix, lambda who, p, b: c.model(who, *_which(p))),
            ]
        return routes

    def _memory(self) -> list[Route]:
        c, routes = self._control, []
        for kind in ("systemsharedmemory", "cudasharedmemory"):
            cuda = kind == "cudasharedmemory"
            status, unregister = self._memory_status(cuda=cuda), self._memory_forget(cuda=cuda)
            region = f"/v2/{kind}/region/{{region}}"
            routes += [
                *self._get(f"/v2/{kind}/status", status),
                *self._get(f"{region}/status", status),
                *self._post(f"/v2/{kind}/unregister", unregister),
                *self._post(f"{region}/unregister", unregister),
            ]
        return [
            *routes,
            *self._post("/v2/systemsharedmemory/region/{region}/register", self._register),
            *self._post(
                "/v2/cudasharedmemory/region/{region}/register",
                lambda who, p, b: c.cuda_register(p["region"]),
            ),
        ]

    # --- handlers that need more than a call

    async def _infer(self, request: Request) -> Response:
        """Connections answer this themselves (`http_connection`); here only its method is known."""
        raise ProtocolError(503, "send this request again")

    def _index(self, who: Caller, path: dict[str, str], body: dict[str, Any]) -> Any:
        return self._control.index(who, ready=body.get("ready") is True)

    async def _load(self, who: Caller, path: dict[str, str], body: dict[str, Any]) -> None:
        await self._control.load(who, path["model"], _parameters(body))

    async def _unload(self, who: Caller, path: dict[str, str], body: dict[str, Any]) -> None:
        await self._control.unload(who, path["model"])

    def _register(self, who: Caller, path: dict[str, str], body: dict[str, Any]) -> None:
        size, offset = body.get("byte_size"), body.get("offset", 0)
        self._control.memory_register(who, path["region"], body.get("key"), offset, size)

    def _memory_status(self, *, cuda: bool) -> Handler:
        def status(who: Caller, path: dict[str, str], body: dict[str, Any]) -> Any:
            name = path.get("region", "")
            if cuda:
                return self._control.cuda_status(name)
            return self._control.memory_status(who, name)

        return status

    def _memory_forget(self, *, cuda: bool) -> Handler:
        def forget(who: Caller, path: dict[str, str], body: dict[str, Any]) -> None:
            name = path.get("region", "")
            if cuda:
                self._control.cuda_unregister(name)
            else:
                self._control.memory_unregister(who, name)

        return forget

    async def _model_ready(self, request: Request) -> Response:
        ready = self._control.model_ready(self.caller(request), *_which(request.path_params))
        return Response(status_code=200 if ready else 400)

    # --- how routes are made

    def _health(self, healthy: Callable[[], bool]) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            return Response(status_code=200 if healthy() else 503)

        return answer

    def _get(self, path: str, handler: Handler) -> list[Route]:
        return [Route(path, self._answer(handler), methods=["GET"])]

    def _post(self, path: str, handler: Handler) -> list[Route]:
        return [Route(path, self._answer(handler), methods=["POST"])]

    def _setting(self, path: str, handler: Handler) -> list[Route]:
        return [Route(path, self._answer(handler), methods=["GET", "POST"])]

    def _answer(self, handler: Handler) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            caller = self.caller(request)
            body = await _json_body(request) if request.method == "POST" else {}
            value = handler(caller, dict(request.path_params), body)
            if isinstance(value, Awaitable):
                value = await value
            return Response() if value is None else json_response(value)

        return answer

    def caller(self, request: Request) -> Caller:
        """Who sent `request`. Raises ProtocolError."""
        return self._gate.access.caller(request.headers.get("authorization"))


def make_app(
    gate: Gate, control: Control, more: list[BaseRoute], lifespan: Lifespan | None = None
) -> Starlette:
    """The ASGI application, with `more` routes: those of an operator."""
    return Starlette(
        routes=[*Front(gate, control).routes(), *more],
        lifespan=lifespan,
        exception_handlers={
            HTTPException: _on_http_error,
            ProtocolError: _on_error,
            UserError: _on_error,
            Exception: _on_error,
        },
    )


def for_operators(gate: Gate, routes: Sequence[Route]) -> list[BaseRoute]:
    """`routes`, for operators only."""

    def guarded(endpoint: Any) -> Any:
        async def answer(request: Request) -> Any:
            require_operator(gate.access.caller(request.headers.get("authorization")))
            return await endpoint(request)

        return answer

    return [Route(r.path, guarded(r.endpoint), methods=list(r.methods or ())) for r in routes]


def json_response(value: Any, status: int = 200) -> Response:
    """`value` as JSON."""
    return Response(msgspec.json.encode(value), status, media_type="application/json")


async def _on_http_error(request: Request, error: Exception) -> Response:
    status = getattr(error, "status_code", 500)
    return json_response({"error": str(getattr(error, "detail", error))}, status)


async def _on_error(request: Request, error: Exception) -> Response:
    known = as_protocol_error(error) or ProtocolError(500, f"internal: {type(error).__name__}")
    return json_response({"error": known.message}, known.status)


def _which(path: dict[str, str]) -> tuple[str, str]:
    return path["model"], path.get("version", "")


def _parameters(body: dict[str, Any]) -> dict[str, Any]:
    parameters = body.get("parameters", {})
    if not isinstance(parameters, dict):
        raise ProtocolError(400, "parameters must be an object")
    return parameters


async def _json_body(request: Request) -> dict[str, Any]:
    chunks, size = [], 0
    try:
        async for chunk in request.stream():
            size += len(chunk)
            if size > _BODY_BYTES_MAX:
                raise ProtocolError(413, f"body of more than {_BODY_BYTES_MAX} bytes")
            chunks.append(chunk)
    except ClientDisconnect as error:
        raise ProtocolError(499, "the client has gone") from error
    text = b"".join(chunks)
    if not text.strip():
        return {}
    try:
        value = msgspec.json.decode(text)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise ProtocolError(400, f"the body is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise ProtocolError(400, "the body must be an object")
    return value
