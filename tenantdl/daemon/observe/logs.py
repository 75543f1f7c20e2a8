"""One line a request, if it is asked for: its number (that of the journal, the trace and lanes'
complaints), the id its client gave it, tenant, model, outcome, and where the time went."""

from __future__ import annotations

import logging
from typing import Any

from tenantdl import logs
from tenantdl.daemon.observe.ended import Ended
from tenantdl.load.workload import ObserveSection
from tenantdl.units import to_ms

_requests = logging.getLogger("tenantdl.requests")


def set_up(options: ObserveSection) -> None:
    """Log to stderr as `options` say."""
    logs.set_up(options.log)
    _requests.setLevel(logging.INFO if options.requests else logging.WARNING)


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
