"""Machines as data: a TOML file each. Those in `machines/` go by their names."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from tenantdl.errors import UserError
from tenantdl.ids import CoreId, LaneId
from tenantdl.sched.config import LaneSpec, Overheads
from tenantdl.units import US, Ns

_FOLDER = Path(__file__).parent / "machines"
# Where waking an idle lane costs more than this, lanes are told ahead what comes next.
_AHEAD_US = 20

Micros = Annotated[float, Meta(ge=0, le=1e6)]
Factor = Annotated[float, Meta(gt=0, le=1000)]


class MachineFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A machine. `domain_cores` share a last-level cache of `cache_mb` (MiB), `socket_cores` memory
    bandwidth (GB/s). Overheads: of handing a launch to an idle lane, of a block's end, of going on
    with more or fewer cores, of starting with fewer than wanted, of going on in another lane;
    `request_us`: of a request outside the lanes (the median; one in twenty takes `request_p95_us`
    or more), `request_mb_us`: of each megabyte of its input.
    `slower`: by model, how much longer compiled ones take than their bundles say, when served;
    `slower_wide`: the same on more cores than the fewest (where it is not said, as `slower`).
    `contention`: strength of interference (1: as in the profiles); `noise`: standard deviation of
    block times, relative; or how they spread about their mean, `spread`: equally likely factors.
    `source`: "declared", or what was measured."""

    name: str
    source: str
    cores: Annotated[int, Meta(ge=1, le=1024)]
    domain_cores: Annotated[int, Meta(ge=1)]
    socket_cores: Annotated[int, Meta(ge=1)]
    bandwidth_gbs: Annotated[float, Meta(gt=0)]
    cache_mb: Annotated[float, Meta(gt=0)] = 16.0
    handover_us: Micros
    boundary_us: Micros
    resize_us: Micros
    conflict_us: Micros
    migrate_us: Micros
    request_us: Micros = 0.0
    request_p95_us: Micros = 0.0
    request_mb_us: Micros = 0.0
    contention: Annotated[float, Meta(ge=0, le=10)] = 1.0
    noise: Annotated[float, Meta(ge=0, le=1)] = 0.0
    spread: Annotated[tuple[Factor, ...], Meta(max_length=1000)] = ()
    slower: dict[str, Factor] = {}
    slower_wide: dict[str, Factor] = {}

    @property
    def ahead(self) -> bool:
        """Whether lanes should know what comes next while they still run."""
        return self.handover_us > _AHEAD_US

    def lanes(self) -> tuple[LaneSpec, ...]:
        """A lane for every core."""
        return tuple(LaneSpec(LaneId(core), (CoreId(core),)) for core in range(self.cores))

    def domains(self) -> tuple[tuple[CoreId, ...], ...]:
        """The cores of every last-level cache."""
        step = self.domain_cores
        return tuple(
            tuple(CoreId(core) for core in range(first, min(first + step, self.cores)))
            for first in range(0, self.cores, step)
        )

    def overheads(self) -> Overheads:
        """As the scheduler is told."""
        return Overheads(_ns(self.handover_us), _ns(self.resize_us), _ns(self.migrate_us))


def known_machines() -> list[str]:
    """Names that need no file."""
    return sorted(path.stem for path in _FOLDER.glob("*.toml"))


def load_machine(name: str) -> MachineFile:
    """The machine of that name, or of that file. Raises UserError."""
    path = Path(name) if name.endswith(".toml") else _FOLDER / f"{name}.toml"
    try:
        return msgspec.toml.decode(path.read_bytes(), type=MachineFile)
    except FileNotFoundError as error:
        known = ", ".join(known_machines())
        raise UserError(f"machine {name!r} is unknown; known: {known}, or a .toml file") from error
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror}", where=str(path)) from error
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise UserError(f"not a machine: {error}", where=str(path)) from error


def _ns(micros: float) -> Ns:
    return Ns(round(micros * US))
