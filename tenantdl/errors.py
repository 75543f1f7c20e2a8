"""The three families of errors. Everything the project raises on purpose is one of them.

`UserError`       the model, config, request, bundle or machine is not fit: one line that says what
                  and where. The CLI prints it and exits with 2; the server answers 4xx.
`ExecutionError`  a block failed while running: a lane died, a kernel raised. Becomes an event of
                  the scheduler; the request is retried or refused with a reason.
`InvariantError`  a bug of ours. Carries the story that led to it.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class TenantdlError(Exception):
    """Base of everything raised on purpose."""


class UserError(TenantdlError):
    """Bad model, config, request or bundle. `where` names the file, node or key."""

    def __init__(self, what: str, *, where: str | None = None) -> None:
        self.what = " ".join(what.split())
        self.where = where
        super().__init__(f"{where}: {self.what}" if where else self.what)


class ExecutionError(TenantdlError):
    """A block could not be run to its end."""


class InvariantError(TenantdlError):
    """Something that cannot happen did; `story` lists what led to it, oldest first."""

    def __init__(self, what: str, story: tuple[str, ...] = ()) -> None:
        self.story = story
        super().__init__("\n  ".join((what, *story)))


def nearest(word: str, known: Iterable[str]) -> str:
    """The end of a line that says `word` is unknown: the known one it may be meant for, or all."""
    names = list(known)
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.5)
    return f", did you mean {close[0]!r}?" if close else f"; known: {', '.join(names)}"
