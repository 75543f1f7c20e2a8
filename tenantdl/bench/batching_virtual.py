"""Batching of compiled models in virtual time: the daemon's scheduler with the costs that bundles
carry, on declared cores. For machines that are too busy to measure on, and for many rates at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tenantdl.bundle.load import read_manifest
from tenantdl.daemon.catalogue import ServedModel, open_catalogue, scheduler_config
from tenantdl.ids import CoreId, LaneId, RequestId, TenantId
from tenantdl.load.arrivals import Shape, poisson
from tenantdl.load.inputs import random_inputs
from tenantdl.load.workload import Workload
from tenantdl.sched.config import LaneSpec
from tenantdl.sched.messages import RequestArrived
from tenantdl.sim.engine import Simulation
from tenantdl.sim.execution import ExecutionModel
from tenantdl.sim.machines import MachineFile
from tenantdl.units import SECOND, Ns, from_ms, to_ms

Row = dict[str, Any]


def machine(cores: int) -> MachineFile:
    """Equal cores with the hand-over of a two-core virtual machine, and some noise."""
    return MachineFile(
        name=f"{cores} cores",
        source="declared",
        cores=cores,
        domain_cores=cores,
        socket_cores=cores,
        bandwidth_gbs=20.0,
        handover_us=100.0,
        boundary_us=5.0,
        resize_us=5.0,
        conflict_us=5.0,
        migrate_us=5.0,
        noise=0.05,
    )


def alone_ms(model: ServedModel, kinds: Sequence[int]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """What requests for plans `kinds` take alone on one core."""
    return np.array([to_ms(Ns(sum(s.cost_ns for s in model.plans[k].segments))) for k in kinds])


def kinds_of(model: ServedModel, requests: Sequence[Any]) -> list[int]:
    """The plan of each kind of request."""
    return [model.plan_for(random_inputs(tensors, 0)) for tensors in requests]


def run(
    workload: Workload, kinds: Sequence[int], rate: float, seconds: float, seed: int, cores: int
) -> tuple[int, int]:
    """Requests that count, and how many of them were in time; the first quarter does not count."""
    lanes = [LaneSpec(LaneId(i), (CoreId(i),)) for i in range(cores)]
    catalogue = open_catalogue(workload)
    config = scheduler_config(workload, catalogue, lanes)
    model = next(iter(catalogue.models.values()))
    tenant = workload.tenant[0]
    qos, patience = from_ms(tenant.qos_ms), from_ms(tenant.timeout_ms or 1e5)
    rng = np.random.default_rng(seed)
    since = seconds / 4
    due = poisson(rate, seconds + since, rng, Shape())
    plans = rng.choice(np.array(kinds), len(due))
    arrivals = [
        (
            Ns(at),
            RequestArrived(
                RequestId(number),
                TenantId(tenant.name),
                model.id,
                plan,
                Ns(at + qos),
                Ns(at + patience),
                tenant.priority,
            ),
        )
        for number, (at, plan) in enumerate(zip(due.tolist(), plans.tolist(), strict=True), 1)
    ]
    simulation = Simulation(config, ExecutionModel(machine(cores), config), seed=seed)
    outcome = simulation.run(arrivals)
    counted = [answer for answer in outcome.answers if answer.at >= since * SECOND]
    good = [a for a in counted if a.finished is not None and a.finished <= a.arrived.deadline]
    return len(counted), len(good)


def model_of(bundle: Path, workload: Workload) -> ServedModel:
    """The bundle as the daemon would serve it."""
    found = open_catalogue(workload).find(read_manifest(bundle).name)
    if not isinstance(found, ServedModel):
        raise TypeError(f"{bundle} is not a model")
    return found
