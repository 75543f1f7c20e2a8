"""Tables of slowdowns as a file: written after a profile, read by the daemon. No learner needed.

Format history
  1  first form.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from tenantdl.documents import indented_json, read_document, write_document
from tenantdl.errors import UserError
from tenantdl.machine import this_machine
from tenantdl.sched.config import PlanSpec

FORMAT = 1
_BYTES_MAX = 16 * 1024**2


class VariantTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """As in `sched.config.VariantSpec`."""

    pressure: int
    slowdowns: tuple[int, ...]


class ModelTables(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Of the variants of a bundle's first plan. `digest`: of the bundle that was profiled."""

    digest: str
    variants: tuple[VariantTable, ...]


class InterferenceTables(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`machine`: the processor's name; `models`: by the names in their manifests."""

    format: int
    machine: str
    models: dict[str, ModelTables]


def write_tables(models: dict[str, ModelTables], path: Path) -> None:
    """Write tables of this machine. Raises UserError."""
    write_document(path, indented_json(InterferenceTables(FORMAT, this_machine().model, models)))


def read_tables(path: Path) -> dict[str, ModelTables]:
    """Tables of this machine. Raises UserError, also for those of another."""
    found = read_document(
        path, InterferenceTables, "tables file", format=FORMAT, bytes_max=_BYTES_MAX
    )
    if found.machine != this_machine().model:
        raise UserError(f"is of another machine ({found.machine})", where=str(path))
    for name, model in found.models.items():
        for table in model.variants:
            levels = table.slowdowns
            if (
                not levels
                or min(levels) < 1
                or list(levels) != sorted(levels)
                or table.pressure < 0
            ):
                raise UserError(f"a table of {name} is no table of slowdowns", where=str(path))
    return found.models


def tabled(spec: PlanSpec, tables: ModelTables) -> PlanSpec:
    """`spec` with what the tables say of its variants. Raises UserError if these are others."""
    if len(tables.variants) != len(spec.variants):
        raise UserError(
            f"tables of {len(tables.variants)} variants, the bundle has {len(spec.variants)}:"
            " profile it again"
        )
    pairs = zip(spec.variants, tables.variants, strict=True)
    return PlanSpec(
        tuple(
            msgspec.structs.replace(variant, pressure=table.pressure, slowdowns=table.slowdowns)
            for variant, table in pairs
        )
    )
