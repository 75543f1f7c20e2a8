"""How values are shown to people: tables, sizes, progress. All that is printed passes here."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

WIDTH_WHEN_PIPED = 120


def console(*, err: bool = False) -> Console:
    """A console on stdout (or stderr); wide enough for tables where it is not a terminal."""
    stream = sys.stderr if err else sys.stdout
    return Console(
        file=stream, width=None if stream.isatty() else WIDTH_WHEN_PIPED, highlight=False
    )


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print rows under `columns`. One whose name starts with `>` is right-aligned; when all names
    are empty there is no header."""
    shown = Table(
        title=title or None,
        title_justify="left",
        box=None,
        pad_edge=False,
        show_header=any(columns),
    )
    for column in columns:
        right = column.startswith(">")
        shown.add_column(column.removeprefix(">"), justify="right" if right else "left")
    for row in rows:
        shown.add_row(*(str(cell) for cell in row))
    console().print(shown, markup=False)


def line(text: str = "") -> None:
    """Print one line on stdout as it is."""
    console().print(text, markup=False, soft_wrap=True)


def note(text: str) -> None:
    """Print one line on stderr: for what is not the result itself."""
    console(err=True).print(text, markup=False, soft_wrap=True)


def results(path: Path, rows: Sequence[dict[str, Any]], *, seed: int | None = None) -> None:
    """Write `rows` in the common envelope to `path`, or to stdout where it is `-`."""
    from tenantdl.bench.envelope import seal, write_results
    from tenantdl.cli.bench import command_line
    from tenantdl.documents import indented_json

    if str(path) == "-":
        sys.stdout.write(indented_json(seal(rows, command=command_line(), seed=seed)).decode())
    else:
        write_results(path, rows, command=command_line(), seed=seed)


@contextmanager
def progress(title: str, *, total: float | None = 1.0) -> Iterator[Callable[[str, float], None]]:
    """A bar on stderr, fed by (phase, fraction of the whole); silent where it is no terminal."""
    with Progress(
        TextColumn("{task.fields[title]}"),
        BarColumn(),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
        console=console(err=True),
        transient=True,
        disable=not sys.stderr.isatty(),
    ) as bar:
        task = bar.add_task("", total=total, title=title)

        def report(phase: str, fraction: float) -> None:
            bar.update(task, description=phase, completed=fraction)

        yield report


@contextmanager
def working(title: str) -> Iterator[None]:
    """A bar that only moves, for work whose length is not known; silent as `progress`."""
    with progress(title, total=None):
        yield


def size(nbytes: int) -> str:
    """Bytes as people read them: 1.4 MiB."""
    value = float(nbytes)
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} GiB"


def shape(extents: Sequence[int | str]) -> str:
    """A shape as it is typed on the command line: 1x3x224x224 (names where it varies)."""
    return "x".join(str(extent) for extent in extents) or "scalar"


def percent(part: float, whole: float) -> str:
    """A share, or a dash where there is no whole."""
    return f"{100 * part / whole:.1f} %" if whole else "–"
