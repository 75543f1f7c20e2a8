"""Rows of a comparison: one for a run and a target, with every rate that was driven."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tenantdl.bench.envelope import read_results
from tenantdl.bench.serving.probe import Probe
from tenantdl.bench.serving.search import Found
from tenantdl.errors import UserError
from tenantdl.load.workload import Workload

EXPERIMENT = "qos-targets"
# Shares of every tenant's requests that have to be in time.
SHARES = (0.95, 0.99)

Row = dict[str, Any]


def found_row(workload: Workload, name: str, number: int, found: Found, *, fixed: bool) -> Row:
    """Run `number` (from 0) of target `name`; latencies are those at the highest rate that held at
    95 %. `fixed`: there was no search, only one rate."""
    shown = found.at(SHARES[0]) or min(found.probes, key=lambda p: p.rate)
    return {
        "experiment": EXPERIMENT,
        "workload": workload.name,
        "target": name,
        "run": number + 1,
        "qps_at_95": None if fixed else round(found.rates[0.95], 3),
        "qps_at_99": None if fixed else round(found.rates[0.99], 3),
        "rate": round(shown.rate, 3),
        "p50_ms": shown.percentile(50),
        "p95_ms": shown.percentile(95),
        "p99_ms": shown.percentile(99),
        "p999_ms": shown.percentile(99.9),
        "goodput": round(shown.goodput, 3),
        "core_usage": shown.cores,
        "client_core_usage": shown.client_cores,
        "arrivals": workload.load.arrivals,
        "policy": workload.scheduler.policy,
        "probes": [_probed(p) for p in sorted(found.probes, key=lambda p: p.rate)],
    }


def _probed(result: Probe) -> Row:
    return {
        "rate": round(result.rate, 3),
        "stopped": result.stopped,
        "worst": round(result.worst, 4),
        "goodput": round(result.goodput, 3),
        "core_usage": result.cores,
        **{f"p{q:g}_ms".replace(".", ""): result.percentile(q) for q in (50, 95, 99, 99.9)},
        "tenants": {
            tally.tenant: {
                "qos_ms": tally.qos_ms,
                "due": tally.due,
                "in_time": tally.in_time,
                "share": round(tally.share, 4),
                "throughput": round(tally.answered / result.duration_s, 3),
                **{
                    f"p{q}_ms": round(float(np.percentile(tally.latencies_ms, q)), 3)
                    for q in (50, 95, 99)
                    if tally.latencies_ms
                },
            }
            for tally in result.tallies
        },
    }


def said(row: Row) -> str:
    """A row in one line."""
    if row["qps_at_95"] is None:
        worst = row["probes"][0]["worst"]
        return f"{row['target']}: {worst:.1%} of the worst-off tenant in time at {row['rate']:g}/s"
    return f"{row['target']}: {row['qps_at_95']:.1f}/s at 95 %, {row['qps_at_99']:.1f}/s at 99 %"


def earlier_rates(files: Sequence[Path], workload: str) -> dict[str, float]:
    """The median rate of every target in earlier results for the same workload. Raises UserError
    where there is none."""
    held: dict[str, list[float]] = {}
    for row in read_results(*files).results:
        if row.get("workload") == workload and row.get("qps_at_95"):
            held.setdefault(str(row["target"]), []).append(float(row["qps_at_95"]))
    if not held:
        raise UserError(f"holds no rates for workload {workload}", where=str(files[0]))
    return {target: float(np.median(rates)) for target, rates in held.items()}
