"""What an operator can ask over HTTP: /metrics, /status, /trace, and the dashboard's page."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from importlib.resources import files
from typing import Protocol

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from tenantdl.daemon.observe.observer import Observer
from tenantdl.units import Ns

_JSON = "application/json"
# Of a block's number in a query.
_DIGITS_MAX = 15
_UNCACHED = {"cache-control": "no-store"}
_TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
# The page is all our own: nothing inline, nothing from elsewhere, in nobody's frame.
_PAGE_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self';"
    " img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none';"
    " frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}


class Observed(Protocol):
    """A daemon that can be looked at (`tenantdl.daemon.engine.Engine`)."""

    observer: Observer

    @property
    def ready(self) -> bool:
        """Whether requests can be served."""


def routes(observed: Observed) -> Sequence[Route]:
    """What only operators may see: it is about all tenants."""

    async def metrics(request: Request) -> Response:
        page = observed.observer.metrics(Ns(time.monotonic_ns()), ready=observed.ready)
        return Response(page, media_type="text/plain; version=0.0.4")

    async def status(request: Request) -> Response:
        since = request.query_params.get("since")
        if since is not None and not (since.isdecimal() and len(since) <= _DIGITS_MAX):
            raise HTTPException(400, f"since: {since[:40]!r} is not the number of a block")
        now = Ns(time.monotonic_ns())
        number = None if since is None else int(since)
        document = observed.observer.status(now, ready=observed.ready, since=number)
        return Response(msgspec.json.encode(document), media_type=_JSON, headers=_UNCACHED)

    async def trace(request: Request) -> Response:
        name = 'attachment; filename="tenantdl-trace.json"'
        headers = {**_UNCACHED, "content-disposition": name}
        return StreamingResponse(_trace(observed.observer), media_type=_JSON, headers=headers)

    return [
        Route("/metrics", metrics),
        Route("/status", status),
        Route("/trace", trace),
    ]


async def _trace(observer: Observer) -> AsyncIterator[bytes]:
    for piece in observer.trace():
        yield piece
        await asyncio.sleep(0)


def pages() -> Sequence[Route]:
    """The dashboard's files, read once. They say nothing of anybody: the page asks for a token
    where `routes` need one."""
    held = {
        file.name: Response(
            file.read_bytes(),
            media_type=_TYPES[file.name.rpartition(".")[2]],
            headers=_PAGE_HEADERS,
        )
        for file in (files("tenantdl.daemon") / "dashboard").iterdir()
        if file.is_file()
    }

    async def page(request: Request) -> Response:
        found = held.get(request.path_params.get("file", "index.html"))
        if found is None:
            raise HTTPException(404, "the dashboard has no such file")
        return found

    async def home(request: Request) -> Response:
        return RedirectResponse("dashboard/")

    return [
        Route("/", home),
        Route("/dashboard", home),
        Route("/dashboard/", page),
        Route("/dashboard/{file}", page),
    ]
