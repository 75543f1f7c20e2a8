"""Which of a template's candidate schedules an operator gets: a record's, else the best predicted.

A template ranks its candidates by predicted time and asks `Schedules.pick`. Records are lines of
JSON in `tuning_logs/<model>/<target>.jsonl`, small and reviewable; one says which candidate won for
one key (the operator's sizes and the number of cores), and is used whatever model it came from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec

from tenantdl.compile.target import CpuTarget
from tenantdl.documents import write_document
from tenantdl.errors import UserError

S = TypeVar("S")
_EVEN_MAX = 1.15  # times the cycles of the best, for one schedule that suits all buckets
RECORDS_BYTES_MAX = 64 * 1024**2
_PACKAGE = Path(__file__).resolve().parents[1]
# In a wheel the records lie inside the package, in a checkout beside it.
COMMITTED = next(
    (p for p in (_PACKAGE / "tuning_logs", _PACKAGE.parent / "tuning_logs") if p.is_dir()),
    _PACKAGE / "tuning_logs",
)


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`schedule` won for `key`. `ns`: its measured time in the network on 1, 2, … cores;
    `first_ns`: that of the candidate with the best prediction."""

    key: str
    schedule: str
    ns: tuple[int, ...]
    first_ns: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Choice(Generic[S]):
    """A picked schedule; `settled` when a record said so, or there was no other. `footprint`: bytes
    that a core comes back to, and bytes from beyond its own caches, where the template says."""

    key: str
    schedule: S
    settled: bool
    footprint: tuple[int, int] | None = None


class Packing(NamedTuple):
    """`source`: weights as the graph has them; `packed`: as a kernel reads them, under the `name`
    that follows from their bytes."""

    source: Any
    name: str
    packed: Any


class Schedules:
    """Records, and for what they do not hold: the candidate of rank `rank`. `panels`: how wide the
    panels are that dense weights were packed in, by the value that holds them; `borders`: what was
    kept around packed values; `packings`: weights as they were packed for kernels. `beyond`: how
    many places behind a plan's own schedules these are (`others`). Without `winograd4` convolutions
    do without the large, less accurate tiles of Winograd's algorithm. `grain`: the largest part of
    this graph's extent that the extents of all buckets are multiples of (0: there is one bucket);
    `common`: what was chosen for all buckets, by what it was chosen for."""

    def __init__(
        self, records: Iterable[Record] = (), rank: int = 0, *, winograd4: bool = True
    ) -> None:
        self.winograd4 = winograd4
        self._winners = {record.key: record.schedule for record in records}
        self._rank = rank
        self.beyond = 0
        self.panels: dict[str, int] = {}
        self.borders: dict[str, Any] = {}
        self.packings: dict[tuple[object, ...], Packing] = {}
        self.grain = Fraction(0)
        self.common: dict[str, Any] = {}

    def others(self, rank: int) -> Schedules:
        """Those that pick the candidate `rank` places behind these' for the same plan in memory:
        panels and borders are kept."""
        others = Schedules((), self._rank, winograd4=self.winograd4)
        # What suits all buckets may be none of the candidates: then the best of these is another.
        others._winners, others.beyond = self._winners, rank - (self.grain > 0)
        others.panels, others.borders = dict(self.panels), dict(self.borders)
        others.packings = self.packings
        return others

    def pick(
        self,
        key: str,
        ranked: Sequence[S],
        footprint: Callable[[S], tuple[int, int] | None] | None = None,
    ) -> Choice[S]:
        """One of `ranked` (best prediction first, not empty). A record of a candidate that is not
        among them (any more, or because an option excludes it) does not count."""
        winner = self._winners.get(key)
        recorded = [at for at, one in enumerate(ranked) if repr(one) == winner]
        first = recorded[0] if recorded else min(self._rank, len(ranked) - 1)
        order = [first, *(at for at in range(len(ranked)) if at != first)]
        schedule = ranked[order[min(self.beyond, len(order) - 1)]]
        known = None if footprint is None else footprint(schedule)
        return Choice(key, schedule, bool(recorded) or len(ranked) == 1, known)


def ranked(
    candidates: Iterable[S], cycles: Callable[[S], float], kind: Callable[[S], Any]
) -> list[S]:
    """Best prediction first, then the best of every other kind, then the rest: what is measured
    first should differ in more than details."""
    order = sorted(candidates, key=cycles)
    kinds: dict[Any, S] = {}
    for candidate in order:
        kinds.setdefault(kind(candidate), candidate)
    heads = list(kinds.values())
    return [*heads, *(c for c in order if not any(c is head for head in heads))]


def common_choice(even: Iterable[S], every: Iterable[S], cycles: Callable[[S], float]) -> S | None:
    """The best prediction of `even`, which suit all buckets; None if the best of `every`, each for
    one of them, is much better."""
    best = min(even, key=cycles, default=None)
    if best is None or cycles(best) > _EVEN_MAX * min(map(cycles, every)):
        return None
    return best


def read_records(target: CpuTarget, folders: Iterable[Path] = (COMMITTED,)) -> list[Record]:
    """All records for `target` in the folders that exist; later ones win. Raises UserError."""
    files = [file for folder in folders for file in sorted(folder.glob(_file_of(target, "*")))]
    return [record for file in files for record in _read(file)]


def write_records(records: Sequence[Record], target: CpuTarget, model: str, folder: Path) -> Path:
    """Add to the model's log in `folder`, newer records in place of older ones of the same key.
    Written aside and renamed. Raises UserError when that fails."""
    file = folder / _file_of(target, model)
    old = _read(file) if file.is_file() else []
    lines = {record.key: msgspec.json.encode(record) + b"\n" for record in [*old, *records]}
    write_document(file, b"".join(lines[key] for key in sorted(lines)))
    return file


def _file_of(target: CpuTarget, model: str) -> str:
    """Records are kept apart by instruction set and caches."""
    caches = target.caches
    machine = f"{target.level.mcpu}-{caches.l1d_bytes // 1024}k-{caches.l2_bytes // 1024}k"
    return f"{model}/{machine}.jsonl"


def _read(file: Path) -> list[Record]:
    if file.stat().st_size > RECORDS_BYTES_MAX:
        raise UserError("tuning log is too large", where=str(file))
    found = []
    for number, line in enumerate(file.read_bytes().splitlines(), 1):
        try:
            found.append(msgspec.json.decode(line, type=Record))
        except msgspec.MsgspecError as error:
            raise UserError(f"not a tuning record: {error}", where=f"{file}:{number}") from error
    return found
