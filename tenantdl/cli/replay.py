"""`tenantdl replay`: feed a journal to a fresh scheduler and compare what it says."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tenantdl.cli.options import Json
from tenantdl.units import US

if TYPE_CHECKING:
    from tenantdl.sched.state import Counts


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
    json: Json = None,
) -> None:
    """Derive every decision of a journal again; differences end with exit code 1."""
    from tenantdl.cli import render
    from tenantdl.errors import InvariantError, UserError
    from tenantdl.sched.journal import replay

    try:
        with journal.open("rb") as lines:
            replayed = replay(lines, str(journal), check=check)
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror}", where=str(journal)) from error
    except InvariantError as error:
        render.note(str(error))
        raise typer.Exit(1) from error
    if json:
        row = {"experiment": "replay", "events": replayed.agreed, **asdict(replayed.counts)}
        render.results(json, [row])
        return
    render.line(f"{replayed.agreed} events, the same commands")
    render.table("", ["Occasion", ">times", ">mean µs"], _occasions(replayed.counts))


def _occasions(counts: Counts) -> list[tuple[str, int, str]]:
    """How often cores changed hands, and how long lanes stood still then."""
    rows = [
        ("block ends", counts.boundaries, counts.boundaries_ns),
        ("hand-overs to idle lanes", counts.handovers, counts.handovers_ns),
        ("resizes", counts.resizes, counts.resizes_ns),
        ("migrations", counts.migrations, counts.migrations_ns),
        ("conflicts (time in them)", counts.conflicts, counts.conflicts_ns),
    ]
    return [(what, times, f"{ns / US / max(1, times):.1f}") for what, times, ns in rows]
