"""Log lines of the daemon and of its lanes: for people, or JSON objects for programs.

A JSON line has `time` (ISO 8601, UTC), `level`, `logger`, `message`, `exception` if there is one,
and what the record carries in `fields`. Processes that this one starts log in the same form.
"""

from __future__ import annotations

import logging
import os
from datetime import datetime, timezone
from typing import Any

import msgspec

_TEXT = "%(asctime)s %(levelname)s %(message)s"
# Tells the form to the processes that are started.
_VARIABLE = "TENANTDL_LOG"


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


def set_up(form: str | None = None) -> None:
    """Log what is ours to stderr as `text` or `json`; None: as the process that started this."""
    form = form or os.environ.get(_VARIABLE, "text")
    os.environ[_VARIABLE] = form
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines() if form == "json" else logging.Formatter(_TEXT))
    ours = logging.getLogger("tenantdl")
    ours.handlers = [handler]
    ours.propagate = False
