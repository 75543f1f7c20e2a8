"""From a profile to the tables that the scheduler reads: learn, export, write."""

from __future__ import annotations

from pathlib import Path

from tenantdl.errors import UserError
from tenantdl.predict.export import Tables, typical
from tenantdl.predict.model import Boosted
from tenantdl.predict.tables import ModelTables, VariantTable, write_tables
from tenantdl.profile.samples import encounters
from tenantdl.profile.store import Store
from tenantdl.profile.subjects import room

_SEED = 1


def export_tables(profile: Path, output: Path) -> None:
    """Learn from what `profile` holds and write tables to `output`. Raises UserError."""
    with Store(profile) as store:
        met = encounters(store)
        digests = {
            name.split("@")[0]: name.split("@")[1].split("/")[0]
            for name in store.solos()
            if "/p0b" in name
        }
    samples = [sample for meeting in met for sample in meeting]
    if not samples:
        raise UserError("holds nothing of a campaign: profile with --corun", where=str(profile))
    known = {model: parties for model, parties in typical(samples).items() if model in digests}
    shared = room()
    tables = Tables(Boosted(samples, shared, _SEED), known, samples, shared).export(known)
    write_tables(
        {
            model: ModelTables(digests[model], tuple(VariantTable(*variant) for variant in table))
            for model, table in tables.items()
        },
        output,
    )
