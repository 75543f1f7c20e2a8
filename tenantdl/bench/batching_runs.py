"""Several runs of `bench batching` in one row: medians, and how far they lay apart."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Any

Row = dict[str, Any]
_SAME = ("case", "label", "policy", "slo_multiple", "load")


def summaries(rows: Sequence[Row]) -> list[Row]:
    """One row for those that differ in their seed only, in the order of the first of each: the
    medians of `rate`, `finish_rate` and `goodput`; `runs`; `finish_rate_min`, `finish_rate_max`."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row.get(key) for key in _SAME), []).append(row)
    return [_summary(group) for group in groups.values()]


def _summary(group: Sequence[Row]) -> Row:
    rates = [row["finish_rate"] for row in group]
    middle = {k: median(row[k] for row in group) for k in ("rate", "finish_rate", "goodput")}
    first = {key: group[0][key] for key in _SAME if key in group[0]}
    spread = {"finish_rate_min": min(rates), "finish_rate_max": max(rates), "runs": len(group)}
    return first | middle | spread
