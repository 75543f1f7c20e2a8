"""Profile tables for planning out of what `bench latency` measured."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tenantdl.bench.envelope import read_results
from tenantdl.bench.latency import OURS
from tenantdl.errors import UserError
from tenantdl.plan.tables import Entry, Profile, write_table


def write(results: Sequence[Path], output: Path) -> list[Profile]:
    """Write a table of our own latencies in result files of one machine: medians, with the 95th
    percentile as bound; of equal rows the last counts. Raises UserError for files without any."""
    envelope = read_results(*results)
    entries: dict[str, dict[tuple[int, int], Entry]] = {}
    for row in envelope.results:
        if row.get("target") != OURS or "median_ms" not in row:
            continue
        key = (row["threads"], row["batch"])
        entries.setdefault(row["model"], {})[key] = Entry(
            batch=row["batch"],
            cores=row["threads"],
            latency_ms=row["median_ms"],
            bound_ms=max(row["p95_ms"], row["median_ms"]),
        )
    if not entries:
        raise UserError("no latencies of ours in these files", where=str(results[0]))
    profiles = [
        Profile(model=model, entries=tuple(own[key] for key in sorted(own)))
        for model, own in sorted(entries.items())
    ]
    write_table(output, profiles, envelope.command, envelope.machine)
    return profiles
