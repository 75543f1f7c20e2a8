"""Logs of the daemon: lines for people, or JSON objects for programs; one a request if asked for.

A JSON line has `time` (ISO 8601, UTC), `level`, `logger`, `message`, and what the record carries in
`fields`: the request's number (that of the journal, the trace and lanes' complaints), the id its
client gave it, tenant, model, outcome, and milliseconds from arrival.
"""

from __future__ import annotations

import logging
from datetime import datetime, timezone
from typing import Any

import msgspec

from tenantdl.daemon.observe.ended import Ended
from tenantdl.units import to_ms

FORMATS = ("text", "json")
_TEXT = "%(asctime)s %(levelname)s %(message)s"
_requests = logging.getLogger("tenantdl.requests")


class JsonLines(logging.Formatter):
    """A record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        at = datetime.fromtimestamp(record.created, timezone.utc)
        line: dict[str, Any] = {
            "time": at.isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line, enc_hook=str).decode()


def set_up(form: str, *, requests: bool) -> None:
    """Log to stderr in `form` (of FORMATS); `requests`: also every request that ends."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines() if form == "json" else logging.Formatter(_TEXT))
    root = logging.getLogger("tenantdl")
    root.handlers = [handler]
    root.propagate = False
    _requests.setLevel(logging.INFO if requests else logging.WARNING)


def log_request(ended: Ended) -> None:
    """One line about a request."""
    if not _requests.isEnabledFor(logging.INFO):
        return
    live = ended.live
    outcome = ended.reason.value if ended.reason else "ok"
    total = to_ms(ended.at - live.arrived)
    fields: dict[str, Any] = {
        "request": ended.request,
        "tenant": live.tenant,
        "model": live.model,
        "outcome": outcome,
        "total_ms": total,
        "blocks": ended.blocks,
        "compute_ms": to_ms(ended.computed),
        "batch": ended.ran.size or 1,
        "late": ended.at > live.deadline,
    }
    if live.origin.id:
        fields["id"] = live.origin.id
    if live.origin.traceparent:
        fields["traceparent"] = live.origin.traceparent
    words = "request %d%s of %s for %s: %s after %.2f ms"
    named = f" ({live.origin.id!r})" if live.origin.id else ""
    _requests.info(
        words,
        ended.request,
        named,
        live.tenant,
        live.model,
        outcome,
        total,
        extra={"fields": fields},
    )
