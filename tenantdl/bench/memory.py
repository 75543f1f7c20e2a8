"""`bench memory`: what a server and its processes take, with all models of a workload loaded and
used, against the sum of their weights. Servers run one after the other. Sizes are proportional
shares (what several processes map counts once), in MiB."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tenantdl.api import Progress
from tenantdl.bench.envelope import write_results
from tenantdl.bench.serving.probe import alone
from tenantdl.bench.serving.targets import TARGETS, Setup, check_target
from tenantdl.bench.serving.usage import usage
from tenantdl.bundle.manifest import WEIGHTS
from tenantdl.load.workload import load_workload

Row = dict[str, Any]
_MIB = 1024**2
# What a group of processes may take beside its weights, and how often these may be there.
BASE_MIB, TIMES = 150, 1.3


def measure(
    workload: Path,
    targets: Sequence[str],
    *,
    json: Path | None = None,
    command: str = "tenantdl bench memory",
    progress: Progress = lambda phase, part: None,
) -> list[Row]:
    """A row a target, after some requests of every tenant. Raises UserError for targets that are
    not set up."""
    parsed = load_workload(workload)
    for name in targets:
        check_target(name)
    rows = []
    for number, name in enumerate(targets):
        progress(name, number / len(targets))
        with TemporaryDirectory(prefix="tenantdl-memory-") as folder:
            setup = Setup(parsed, Path(folder), journal=False)
            models = setup.models().values()
            weights = sum((model.bundle / WEIGHTS).stat().st_size for model in models) / _MIB
            with TARGETS[name](setup) as served:
                alone(served, parsed, Path(folder))
                used = usage(served.pid)
        total = used.memory_bytes / _MIB
        rows.append(
            {
                "label": "measured",
                "target": name,
                "models": len(models),
                "cores": len(setup.cores),
                "weights_mib": round(weights, 1),
                "memory_mib": round(total, 1),
                "shared_mib": round(used.shared_bytes / _MIB, 1),
                "processes": used.processes,
                "bound_mib": round(TIMES * weights + BASE_MIB, 1),
                "within": total <= TIMES * weights + BASE_MIB,
            }
        )
        if json is not None:
            write_results(json, rows, command=command, seed=parsed.load.seed)
    return rows
