"""Profile tables: how long models take by batch size and cores, as a file and out of bundles.

A table file is JSON with a version. An entry's `latency_ms` is what to expect, `bound_ms` (where
known) a high quantile; planning goes by the bound, since a promise rests on it.

Format history
  1  first form.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from tenantdl.bundle.load import read_manifest
from tenantdl.bundle.manifest import Manifest, Plan
from tenantdl.documents import indented_json, read_document, write_document
from tenantdl.plan.profile import Configuration, Table, monotone
from tenantdl.units import MS, SECOND

FORMAT = 1
TABLE_BYTES_MAX = 16 * 1024**2

Positive = Annotated[float, Meta(gt=0, le=1e9)]
Count = Annotated[int, Meta(ge=1, le=65536)]


class Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A batch of `batch` on `cores` takes `latency_ms`, and seldom more than `bound_ms`."""

    batch: Count
    cores: Count
    latency_ms: Positive
    bound_ms: Positive | None = None
    source: Literal["measured", "estimated", "declared"] = "measured"


class Profile(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """All entries of one model."""

    model: str
    entries: Annotated[tuple[Entry, ...], Meta(min_length=1, max_length=4096)]


class TableFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A table file. `command`: what produced it; `machine`: where."""

    format: int
    profiles: tuple[Profile, ...]
    command: str = ""
    machine: dict[str, Any] = {}


def read_table(path: Path) -> dict[str, Profile]:
    """Profiles of a table file by model. Raises UserError for what is no such file."""
    file = read_document(path, TableFile, "profile table", format=FORMAT, bytes_max=TABLE_BYTES_MAX)
    return {profile.model: profile for profile in file.profiles}


def write_table(path: Path, profiles: Sequence[Profile], command: str, machine: Any) -> None:
    """Write a table file. Raises UserError when it cannot be written."""
    file = TableFile(
        format=FORMAT, profiles=tuple(profiles), command=command, machine=dict(machine)
    )
    write_document(path, indented_json(file))


def profile_of(manifest: Manifest) -> Profile:
    """What a bundle's manifest says of its model: what its plans cost, the slowest of those for
    equal batches (shape buckets), in their best variant, on every number of cores measured."""
    longest: dict[tuple[int, int], tuple[int, Literal["measured", "estimated"]]] = {}
    for plan in manifest.plans:
        for cores, cost in _costs(plan).items():
            key = cores, plan.batch
            longest[key] = max(longest.get(key, (0, plan.cost_source)), (cost, plan.cost_source))
    entries = [
        Entry(batch=batch, cores=cores, latency_ms=max(cost, 1) / MS, source=source)
        for (cores, batch), (cost, source) in sorted(longest.items())
    ]
    return Profile(model=manifest.name, entries=tuple(entries))


def _costs(plan: Plan) -> dict[int, int]:
    """ns by cores."""
    found = {1: sum(segment.cost_ns for segment in plan.segments)}
    for variant in plan.variants:
        for cores, costs in zip(variant.cores, variant.cost_ns, strict=True):
            found[cores] = min(found.get(cores, sum(costs)), sum(costs))
    return found


def bundle_profile(folder: Path) -> Profile:
    """The profile of the bundle in `folder`. Raises UserError if there is none."""
    return profile_of(read_manifest(folder))


def merged(profiles: Iterable[Profile]) -> Profile:
    """Profiles of one model (at least one) as one; of equal batch and cores the first counts."""
    entries: dict[tuple[int, int], Entry] = {}
    model = ""
    for profile in profiles:
        model = model or profile.model
        for entry in profile.entries:
            entries.setdefault((entry.cores, entry.batch), entry)
    return Profile(model=model, entries=tuple(entries[key] for key in sorted(entries)))


def table_of(
    profile: Profile, prices: Mapping[int, float] | None = None, cores_max: int | None = None
) -> Table:
    """Configurations of a profile. A slot of c cores costs c a unit of time, unless `prices` by
    cores says otherwise. On the same cores a larger batch never counts as faster."""
    table = []
    for cores in sorted({entry.cores for entry in profile.entries}):
        if cores_max is not None and cores > cores_max:
            continue
        own = sorted((e for e in profile.entries if e.cores == cores), key=lambda e: e.batch)
        bounds = monotone([max(e.bound_ms or 0.0, e.latency_ms) for e in own])
        price = float(cores) if prices is None else prices[cores]
        for entry, bound in zip(own, bounds, strict=True):
            duration = bound * MS / SECOND
            table.append(Configuration(entry.batch, duration, hardware_name(cores), price))
    return tuple(table)


def hardware_name(cores: int) -> str:
    """How a slot of so many cores is called."""
    return f"{cores} core" + "s" * (cores > 1)
