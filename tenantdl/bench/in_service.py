"""This machine while it serves: what the figures of an idle one leave out.

Costs in bundles were measured with warm caches and nothing beside; requests that come one by one
find cores that sleep, caches that others have filled, and a daemon and a client on the same cores.
A run on the daemon under a workload's load says how much that is: by model, how much longer blocks
take than when they were compiled (in the mean, since queues grow with that; on more cores than the
fewest apart, who have to wait for each other), and how that spreads (most take a little less than
the mean, one in twenty twice as long); and what the quickest tenant's requests spend outside the
lanes. Its arrivals are others (another seed) than those that are simulated later.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import msgspec
import numpy as np

from tenantdl.bench import qos
from tenantdl.errors import UserError
from tenantdl.exec.lane_pool import BACKEND
from tenantdl.ids import ModelId, RequestId, TenantId
from tenantdl.load.issuer import OK, Sample
from tenantdl.load.published import on_bundles
from tenantdl.load.workload import Workload
from tenantdl.sched.journal import read
from tenantdl.sched.messages import BlockFinished, Complete, Launch, LaunchId, RequestArrived
from tenantdl.sched.policies.names import DEFAULT
from tenantdl.sim.machines import MachineFile
from tenantdl.sim.simulate import model_of, moving
from tenantdl.units import US, Ns

# Equal parts that the spread of block times is told by.
_SPREAD_PARTS = 40


class Block(NamedTuple):
    """What a block took (ns), what its bundle says, and whether on more than the fewest cores."""

    elapsed: int
    cost: int
    wide: bool


class Served(NamedTuple):
    """Of a journal, by tenant: its blocks; of completed requests, in the order of their arrival, ns
    from reaching the scheduler to completion."""

    blocks: dict[TenantId, list[Block]]
    inside: dict[TenantId, list[int]]


def calibrated(
    machine: MachineFile,
    workload: Workload,
    *,
    duration_s: float | None = None,
    backend: str = BACKEND,
) -> MachineFile:
    """`machine` with what a run of `workload` on the daemon says of it. Raises UserError."""
    workload = on_bundles(workload)
    with TemporaryDirectory(prefix="tenantdl-served-") as folder:
        journal = Path(folder) / "journal.jsonl"
        result = qos.run(
            workload,
            duration_s=duration_s,
            seed=workload.load.seed + 1,
            policy=DEFAULT,
            journal=journal,
            backend=backend,
        )
        served = read_served(journal)
    if not served.blocks:
        raise UserError(f"workload {workload.name}: nothing was served")
    blocks: dict[tuple[ModelId, bool], list[Block]] = defaultdict(list)
    for tenant in workload.tenant:
        for block in served.blocks.get(TenantId(tenant.name), []):
            blocks[model_of(workload, tenant), block.wide].append(block)
    slower = {key: _slower(found) for key, found in blocks.items()}
    spread = [b.elapsed / b.cost / slower[key] for key, found in blocks.items() for b in found]
    quick = min(served.inside, key=lambda name: float(np.median(served.inside[name])))
    number = next(i for i, tenant in enumerate(workload.tenant) if tenant.name == quick)
    moved = moving(machine, workload, workload.tenant[number])
    outside = [n - moved for n in _outside(served.inside[quick], result.samples, number)]
    median, p95 = (max(0.0, float(np.percentile(outside, q)) / US) for q in (50, 95))
    return msgspec.structs.replace(
        machine,
        request_us=round(median, 2),
        request_p95_us=round(p95, 2),
        spread=_parts(spread),
        slower=_by_model(slower, wide=False),
        slower_wide=_by_model(slower, wide=True),
    )


def _parts(spread: list[float]) -> tuple[float, ...]:
    """The means of equal parts of `spread`, ascending."""
    parts = np.array_split(np.sort(spread), min(len(spread), _SPREAD_PARTS))
    return tuple(round(float(part.mean()), 4) for part in parts)


def _outside(inside: list[int], samples: Sequence[Sample], stream: int) -> list[int]:
    """Ns that a tenant's requests spent outside the scheduler: as its client saw them, without what
    they were `inside`. They reach it as they were sent; some came before, to warm up."""
    own = [s for s in samples if s.stream == stream and s.status == OK]
    own.sort(key=lambda sample: sample.scheduled + sample.delay)
    pairs = zip(reversed(own), reversed(inside), strict=False)
    return [sample.latency - ns for sample, ns in pairs]


def _slower(blocks: list[Block]) -> float:
    return sum(block.elapsed for block in blocks) / sum(block.cost for block in blocks)


def _by_model(slower: dict[tuple[ModelId, bool], float], *, wide: bool) -> dict[str, float]:
    """Who ran in one way only is as slow in the other."""
    models = sorted({model for model, _ in slower})
    found = {m: slower.get((m, wide)) or slower[m, not wide] for m in models}
    return {str(model): round(factor, 4) for model, factor in found.items()}


def read_served(journal: Path) -> Served:
    """What `journal` says of blocks and requests; of plans for one request each. Raises UserError
    if it is none."""
    blocks: dict[TenantId, list[Block]] = defaultdict(list)
    inside: dict[TenantId, list[tuple[Ns, int]]] = defaultdict(list)
    arrived: dict[RequestId, tuple[RequestArrived, Ns]] = {}
    launches: dict[LaunchId, Launch] = {}
    with journal.open("rb") as lines:
        config, entries = read(lines, str(journal))
        plans = {(m.model, n): plan for m in config.models for n, plan in enumerate(m.plans)}
        for now, event, commands in ((e.now, e.event, e.commands) for e in entries):
            if isinstance(event, RequestArrived):
                arrived[event.request] = (event, now)
            elif isinstance(event, BlockFinished) and event.request in arrived:
                launch, (request, _) = launches[event.launch], arrived[event.request]
                plan = plans.get((request.model, request.plan))
                if plan is not None:
                    variant = plan.variants[launch.variant]
                    known = [i for i, c in enumerate(variant.cores) if c <= len(launch.cores)]
                    place = known[-1] if known else 0
                    cost = max(1, sum(variant.costs[place][event.begin : event.end]))
                    blocks[request.tenant].append(Block(event.elapsed, cost, place > 0))
            for command in commands:
                if isinstance(command, Launch):
                    launches[command.launch] = command
                elif isinstance(command, Complete) and command.request in arrived:
                    request, at = arrived.pop(command.request)
                    inside[request.tenant].append((at, now - at))
    return Served(
        dict(blocks), {name: [ns for _, ns in sorted(found)] for name, found in inside.items()}
    )
