"""What an operator can ask over HTTP: /metrics, /status, /trace."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Protocol

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tenantdl.daemon.observe.observer import Observer
from tenantdl.units import Ns

_JSON = "application/json"
# Of a block's number in a query.
_DIGITS_MAX = 15


class Observed(Protocol):
    """A daemon that can be looked at (`tenantdl.daemon.engine.Engine`)."""

    observer: Observer

    @property
    def ready(self) -> bool:
        """Whether requests can be served."""


def routes(observed: Observed) -> Sequence[Route]:
    """The routes of an operator."""

    async def metrics(request: Request) -> Response:
        return Response(observed.observer.metrics(), media_type="text/plain; version=0.0.4")

    async def status(request: Request) -> Response:
        since = request.query_params.get("since")
        if since is not None and not (since.isdecimal() and len(since) <= _DIGITS_MAX):
            raise HTTPException(400, f"since: {since[:40]!r} is not the number of a block")
        now = Ns(time.monotonic_ns())
        number = None if since is None else int(since)
        document = observed.observer.status(now, ready=observed.ready, since=number)
        return _uncached(msgspec.json.encode(document), _JSON)

    async def trace(request: Request) -> Response:
        response = _uncached(observed.observer.trace(), _JSON)
        response.headers["content-disposition"] = 'attachment; filename="tenantdl-trace.json"'
        return response

    return [Route("/metrics", metrics), Route("/status", status), Route("/trace", trace)]


def _uncached(body: bytes, media_type: str) -> Response:
    return Response(body, media_type=media_type, headers={"cache-control": "no-store"})
