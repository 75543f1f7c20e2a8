"""A profile: one SQLite file, of one machine. What was measured is never measured twice.

Format history
  1  first form.
  2  `before`: slowdowns of whole runs, not of their first segments; counters of parties.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from tenantdl.errors import UserError
from tenantdl.machine import this_machine

FORMAT = 2
# What makes machines alike (as in result files: memory differs by pages from boot to boot).
_ALIKE = ("model", "arch", "cores", "caches", "features")
_SCHEMA = """
create table machine (description text not null);
create table solo (
  subject text primary key, runs integer not null, quantiles_ns text not null,
  boundary_ns real not null, party text not null
);
create table corun (
  victim text not null, neighbour text not null, turns integer not null, slowdown real not null,
  error real not null, primary key (victim, neighbour)
);
create table before (
  victim text not null, other text not null, turns integer not null, slowdown real not null,
  error real not null, primary key (victim, other)
);
create table neighbour (name text primary key, party text not null);
"""


class Measured(msgspec.Struct, frozen=True):
    """`slowdown` of `victim` by `other`, the median of so many `turns`; `error`: its standard
    error, relative."""

    victim: str
    other: str
    turns: int
    slowdown: float
    error: float


class Solo(msgspec.Struct, frozen=True):
    """`quantiles_ns`: quantile in % → ns of a run alone. `boundary_ns`: what cutting it into its
    segments adds, each. `party`: what it is to predictors, as JSON."""

    subject: str
    runs: int
    quantiles_ns: dict[str, float]
    boundary_ns: float
    party: str


class Store:
    """A profile that is open. Every write is one transaction."""

    def __init__(self, path: Path) -> None:
        """Open the profile at `path`, or begin one. Raises UserError for what is no profile, or was
        measured on another machine."""
        self._path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, isolation_level=None)
            version = self._db.execute("pragma user_version").fetchone()[0]
            if version == 0 and not self._tables():
                self._begin()
            elif version != FORMAT:
                raise UserError(f"no profile of format {FORMAT}", where=str(path))
            self._check_machine()
        except (sqlite3.Error, OSError) as error:
            raise UserError(f"not a profile: {error}", where=str(path)) from error

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *error: object) -> None:
        self._db.close()

    def add_solo(self, solo: Solo) -> None:
        """Keep what a subject takes alone."""
        quantiles = msgspec.json.encode(solo.quantiles_ns).decode()
        row = (solo.subject, solo.runs, quantiles, solo.boundary_ns, solo.party)
        with self._transaction():
            self._db.execute("insert or replace into solo values (?, ?, ?, ?, ?)", row)

    def solos(self) -> dict[str, Solo]:
        """By subject."""
        rows = self._db.execute("select * from solo order by subject")
        return {
            name: Solo(name, runs, msgspec.json.decode(q, type=dict[str, float]), boundary, party)
            for name, runs, q, boundary, party in rows
        }

    def add_neighbour(self, name: str, party: str) -> None:
        """Keep what a neighbour is to predictors."""
        with self._transaction():
            self._db.execute("insert or replace into neighbour values (?, ?)", (name, party))

    def neighbours(self) -> dict[str, str]:
        """Parties as JSON, by name."""
        return dict(self._db.execute("select name, party from neighbour order by name").fetchall())

    def add(self, table: str, measured: Measured) -> None:
        """Keep a slowdown: of `corun`, beside another, or `before`, after another on its core."""
        if table not in ("corun", "before"):
            raise ValueError(f"no table {table}")
        row = msgspec.structs.astuple(measured)
        with self._transaction():
            self._db.execute(f"insert or replace into {table} values (?, ?, ?, ?, ?)", row)

    def measured(self, table: str) -> dict[tuple[str, str], Measured]:
        """By (victim, other), of `corun` or `before`."""
        if table not in ("corun", "before"):
            raise ValueError(f"no table {table}")
        rows = self._db.execute(f"select * from {table} order by 1, 2").fetchall()
        return {(row[0], row[1]): Measured(*row) for row in rows}

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        try:
            self._db.execute("begin immediate")
            yield
            self._db.execute("commit")
        except sqlite3.Error as error:
            raise UserError(f"cannot be written: {error}", where=str(self._path)) from error

    def _tables(self) -> list[object]:
        return self._db.execute("select name from sqlite_master").fetchall()

    def _begin(self) -> None:
        self._db.executescript(_SCHEMA)
        machine = msgspec.json.encode(this_machine().describe()).decode()
        self._db.execute("insert into machine values (?)", (machine,))
        self._db.execute(f"pragma user_version = {FORMAT}")

    def _check_machine(self) -> None:
        row = self._db.execute("select description from machine").fetchone()
        then = msgspec.json.decode(row[0]) if row else {}
        now = msgspec.json.decode(msgspec.json.encode(this_machine().describe()))
        for key in _ALIKE:
            if then.get(key) != now.get(key):
                raise UserError(
                    f"measured on another machine ({key} differs): profile this one to a new file",
                    where=str(self._path),
                )
