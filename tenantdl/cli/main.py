"""The `tenantdl` command: its subcommands, and how errors become exit codes.

Exit codes: 0 done; 1 an unexpected error or a failed check; 2 bad input (one line on stderr);
130 interrupted. Libraries are imported inside the commands, so that `--help` answers at once.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated

import typer

from tenantdl import __version__
from tenantdl.cli import (
    bench,
    doctor,
    models,
    plan,
    profile,
    remote,
    replay,
    schema,
    serve,
    simulate,
    zoo,
)
from tenantdl.errors import UserError

USER_ERROR, UNEXPECTED, INTERRUPTED = 2, 1, 130

app = typer.Typer(
    name="tenantdl",
    help="Serve many deep-learning models on shared CPU cores, each within its latency target.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(zoo.app, name="zoo")
models.register(app)
serve.register(app)
remote.register(app)
simulate.register(app)
replay.register(app)
plan.register(app)
profile.register(app)
app.add_typer(bench.app, name="bench")
schema.register(app)
doctor.register(app)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"tenantdl {__version__}")
        raise typer.Exit


@app.callback()
def options(
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of unexpected errors.")
    ] = False,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Options that come before the command."""
    if debug:
        os.environ["TENANTDL_DEBUG"] = "1"


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code."""
    try:
        app(list(arguments), prog_name="tenantdl")
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 0 if stop.code is None else UNEXPECTED
    except UserError as error:
        _complain(str(error))
        return USER_ERROR
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:
        if os.environ.get("TENANTDL_DEBUG"):
            traceback.print_exc()
            return UNEXPECTED
        _complain(f"{type(error).__name__}: {error} (tenantdl --debug shows where)")
        return UNEXPECTED
    return 0


def _complain(what: str) -> None:
    typer.echo(f"tenantdl: error: {' '.join(what.split())}", err=True)


def main() -> None:
    """Entry point of the installed command."""
    sys.exit(run(sys.argv[1:]))
