"""The journal: the config, then every (now, event, commands), one JSON line each; and its replay.

A replay feeds the events to a fresh scheduler and compares commands: what happened on a busy
machine can be stepped through on a laptop.

Format history
  1  first form.
  2  launches carry cores and variant; plans have variants with costs on several core counts.
  3  models and tenants come and go; arenas are the models'. Since then tenants may share a `queue`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import msgspec

from tenantdl.errors import InvariantError, UserError
from tenantdl.sched.batched import BatchedScheduler
from tenantdl.sched.config import SchedulerConfig
from tenantdl.sched.messages import Command, Event
from tenantdl.sched.state import Counts
from tenantdl.units import Ns

FORMAT = 3


class Header(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The first line."""

    format: int
    config: SchedulerConfig


class Entry(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One call of `Scheduler.handle` and what it returned."""

    now: Ns
    event: Event
    commands: tuple[Command, ...]


_encode = msgspec.json.Encoder().encode


def header_line(config: SchedulerConfig) -> bytes:
    """The first line of a journal, newline included."""
    return _encode(Header(FORMAT, config)) + b"\n"


def entry_line(now: Ns, event: Event, commands: list[Command]) -> bytes:
    """One more line, newline included."""
    return _encode(Entry(now, event, tuple(commands))) + b"\n"


def read(lines: Iterable[bytes], where: str = "journal") -> tuple[SchedulerConfig, Iterator[Entry]]:
    """The config and the entries. Raises UserError, also while iterating, for bad lines."""
    numbered = enumerate(lines, 1)
    _, first = next(numbered, (0, b""))
    try:
        header = msgspec.json.decode(first, type=Header)
    except msgspec.MsgspecError as error:
        raise UserError(f"not a journal: {error}", where=where) from error
    if header.format != FORMAT:
        raise UserError(f"journal format {header.format}, this reads {FORMAT}", where=where)
    return header.config, _entries(numbered, where)


def _entries(numbered: Iterator[tuple[int, bytes]], where: str) -> Iterator[Entry]:
    decoder = msgspec.json.Decoder(Entry)
    for number, line in numbered:
        try:
            yield decoder.decode(line)
        except msgspec.MsgspecError as error:
            raise UserError(f"line {number}: {error}", where=where) from error


class Replayed(NamedTuple):
    """`agreed`: entries whose commands were derived again; `counts`: the scheduler's at the end."""

    agreed: int
    counts: Counts


def replay(lines: Iterable[bytes], where: str = "journal", *, check: bool = False) -> Replayed:
    """Feed a journal's events to a fresh scheduler and `check` its invariants after each.

    Raises InvariantError at the first entry whose commands differ, with what they are now.
    """
    config, entries = read(lines, where)
    scheduler = BatchedScheduler(config)
    agreed = 0
    for entry in entries:
        commands = tuple(scheduler.handle(entry.event, entry.now))
        if check:
            scheduler.check()
        if commands != entry.commands:
            raise InvariantError(
                f"{where}: entry {agreed + 1} gives other commands",
                (f"event {entry.event}", f"then {entry.commands}", f"now {commands}"),
            )
        agreed += 1
    return Replayed(agreed, scheduler.counts())
