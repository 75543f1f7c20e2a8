"""The scheduler's journal on disk: lines gathered and written in pieces, up to a bound."""

from __future__ import annotations

import contextlib
import logging
from pathlib import Path

from tenantdl.errors import UserError
from tenantdl.sched.config import SchedulerConfig
from tenantdl.sched.journal import entry_line, header_line
from tenantdl.sched.messages import Command, Event
from tenantdl.units import Ns

_log = logging.getLogger(__name__)
_PIECE_BYTES = 64 * 1024


class JournalWriter:
    """Appends to one file, which is a valid journal at any time after a `flush`."""

    def __init__(self, path: Path, config: SchedulerConfig, bytes_max: int) -> None:
        """Start the file anew. Raises UserError where that is not possible."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("wb", buffering=0)
        except OSError as error:
            raise UserError(f"cannot be written: {error.strerror}", where=str(path)) from error
        self._path = path
        self._left = bytes_max
        self._lines: list[bytes] = []
        self._size = 0
        self._kept = 0
        self._append(header_line(config))

    def write(self, now: Ns, event: Event, commands: list[Command]) -> None:
        """One more entry; beyond the bound entries are dropped."""
        if self._left > 0:
            self._append(entry_line(now, event, commands))

    def flush(self) -> None:
        """Write out what was gathered. A disk that is full ends the journal, not the service."""
        if not self._lines:
            return
        piece = b"".join(self._lines)
        self._lines.clear()
        self._size = 0
        try:
            written = self._file.write(piece)
            if written == len(piece):
                self._kept += written
                return
            reason = "only a part could be written"
        except OSError as error:
            reason = str(error.strerror)
        _log.error("%s: %s: the journal ends here", self._path, reason)
        self._left = 0
        # What was written of the last piece may end in the middle of a line.
        with contextlib.suppress(OSError):
            self._file.truncate(self._kept)

    def close(self) -> None:
        """Flush and close. Idempotent."""
        if not self._file.closed:
            self.flush()
            self._file.close()

    def _append(self, line: bytes) -> None:
        self._lines.append(line)
        self._size += len(line)
        self._left -= len(line)
        if self._left <= 0:
            _log.warning("%s is full: the journal ends here", self._path)
        if self._size >= _PIECE_BYTES or self._left <= 0:
            self.flush()
