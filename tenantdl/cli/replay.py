"""`tenantdl replay`: feed a journal to a fresh scheduler and compare what it says."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command(name="replay")(replay_command)


def replay_command(
    journal: Annotated[
        Path, typer.Argument(metavar="JOURNAL", help="Of a daemon or a simulation.")
    ],
    check: Annotated[
        bool, typer.Option("--check", help="Also check all invariants after every event.")
    ] = False,
) -> None:
    """Derive every decision of a journal again; differences end with exit code 1."""
    from tenantdl.cli import render
    from tenantdl.errors import InvariantError, UserError
    from tenantdl.sched.journal import replay

    try:
        with journal.open("rb") as lines:
            agreed = replay(lines, str(journal), check=check)
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror}", where=str(journal)) from error
    except InvariantError as error:
        render.note(str(error))
        raise typer.Exit(1) from error
    render.line(f"{agreed} events, the same commands")
