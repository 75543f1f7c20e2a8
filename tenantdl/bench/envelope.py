"""Result files: measured rows in an envelope that says what produced them, and where.

An envelope carries version, commit, machine, seed and command, so that a figure can be traced
and repeated. Files of unlike machines are never merged: their figures do not compare.

Format history
  1  first form.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import msgspec

from tenantdl import __version__
from tenantdl.documents import indented_json, read_document, write_document
from tenantdl.errors import UserError
from tenantdl.machine import this_machine

FORMAT = 1
RESULTS_BYTES_MAX = 256 * 1024**2
_GIT_SECONDS_MAX = 10

# What makes machines alike. Total memory is left out: it differs by a few pages from boot to boot.
_ALIKE = ("model", "arch", "cores", "caches", "features")


class Envelope(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A result file. `commit` ends in `+dirty` when files differed from it, and is None outside
    a repository. `created`: ISO 8601, UTC. `results`: rows, whose fields the experiment defines."""

    format: int
    version: str
    commit: str | None
    created: str
    machine: dict[str, Any]
    seed: int | None
    command: str
    results: list[dict[str, Any]]


def seal(results: Sequence[dict[str, Any]], *, command: str, seed: int | None) -> Envelope:
    """`results` in an envelope of here and now."""
    return Envelope(
        format=FORMAT,
        version=__version__,
        commit=_commit(),
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        machine=this_machine().describe(),
        seed=seed,
        command=command,
        results=list(results),
    )


def write_results(
    path: str | os.PathLike[str],
    results: Sequence[dict[str, Any]],
    *,
    command: str,
    seed: int | None,
) -> Envelope:
    """Write `results` (rows of plain data) to `path` as JSON, aside and then renamed.

    `command` is what a reader types to get the figures again. Raises UserError when the file
    cannot be written.
    """
    envelope = seal(results, command=command, seed=seed)
    write_document(Path(path), indented_json(envelope))
    return envelope


def read_results(*paths: str | os.PathLike[str]) -> Envelope:
    """Read result files; of several, the envelope of the first with all their rows.

    Raises UserError for a file that is no result file, and when machines differ.
    """
    if not paths:
        raise UserError("no result file given")
    envelopes = [
        read_document(
            Path(path), Envelope, "result file", format=FORMAT, bytes_max=RESULTS_BYTES_MAX
        )
        for path in paths
    ]
    first = envelopes[0]
    for path, other in zip(paths[1:], envelopes[1:], strict=True):
        for key in _ALIKE:
            if first.machine.get(key) != other.machine.get(key):
                raise UserError(
                    f"measured on another machine than {os.fspath(paths[0])} ({key} differs):"
                    " figures do not compare",
                    where=os.fspath(path),
                )
    rows = [row for envelope in envelopes for row in envelope.results]
    return msgspec.structs.replace(first, results=rows)


def _commit() -> str | None:
    """The commit of the repository that this package lies in, if it lies in one."""
    here = Path(__file__).resolve().parent
    try:
        answers = [
            subprocess.run(
                ["git", *arguments],
                cwd=here,
                env=os.environ | {"GIT_OPTIONAL_LOCKS": "0"},
                capture_output=True,
                text=True,
                check=True,
                timeout=_GIT_SECONDS_MAX,
            ).stdout.strip()
            for arguments in (["rev-parse", "HEAD"], ["status", "--porcelain", "-uno"])
        ]
    except (OSError, subprocess.SubprocessError):
        return None
    return answers[0] + ("+dirty" if answers[1] else "")
