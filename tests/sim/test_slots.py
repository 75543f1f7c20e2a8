"""Batches on slots in virtual time: small versions of the figures of docs/batching.md."""

from __future__ import annotations

import numpy as np
import pytest

from tenantdl.load.arrivals import Shape, poisson
from tenantdl.sched.batching.batcher import Batcher
from tenantdl.sched.batching.config import BatchingConfig, Network, QueueSpec
from tenantdl.sched.batching.latency import linear
from tenantdl.sim.slots import Outcome, Ran, Stream, simulate
from tenantdl.units import MS, Ns, from_ms

RESNET_50 = linear(from_ms(1.053), from_ms(5.072), 64)
SLO = Ns(25 * MS)


def run(policy: str, rate: float, *, models: int = 1, network: Network | None = None) -> Outcome:
    """ResNet-50s on 8 slots for 2 s, 0.5 s of it to warm up."""
    rng = np.random.default_rng(3)
    network = network or Network()
    specs = (QueueSpec("resnet50", RESNET_50, SLO),) * models
    streams = [
        Stream(number, poisson(rate / models, 2.0, rng, Shape()), SLO) for number in range(models)
    ]
    return simulate(
        Batcher(BatchingConfig(specs, 8, policy, network=network)),
        streams,
        8,
        duration_s=2.0,
        warm_up_s=0.5,
        response=network.response,
    )


def test_the_same_seed_gives_the_same_outcome() -> None:
    assert run("deferred", 3000) == run("deferred", 3000)


def test_deferring_uses_as_many_slots_as_the_load_needs() -> None:
    deferred, eager = run("deferred", 3000), run("eager", 3000)
    assert deferred.bad_share == eager.bad_share == 0.0
    assert deferred.busy[0] > 0.8 and deferred.busy[5] < 0.25 and deferred.busy[6:] == [0, 0]
    assert min(eager.busy) > 0.9
    assert 13 < deferred.batch_mean < 15 and 2.5 < eager.batch_mean < 4
    assert sum(deferred.busy) < 0.6 * sum(eager.busy)


def test_goodput_order_of_one_model() -> None:
    assert run("deferred", 5100).bad_share < 0.01
    assert run("eager-window", 4300).bad_share > 0.01


def test_eight_models_on_eight_slots_have_nothing_to_stagger_and_auto_sees_it() -> None:
    bad = {
        policy: run(policy, 4150, models=8).bad_share
        for policy in ("deferred", "auto", "eager-window")
    }
    assert bad["auto"] < bad["deferred"]
    assert bad["auto"] < bad["eager-window"] + 0.01


def test_network_delays_are_planned_for() -> None:
    network = Network(from_ms(0.1), from_ms(0.05), from_ms(2))
    outcome = run("deferred", 4000, network=network)
    assert outcome.late == 0 and outcome.bad_share < 0.01


def test_batches_that_run_longer_than_planned_are_late() -> None:
    times = np.array([0, 0, 1], dtype=np.int64)
    batcher = Batcher(BatchingConfig((QueueSpec("q", (Ns(10),), Ns(30)),), 1, "fcfs"))
    outcome = simulate(
        batcher,
        [Stream(0, times, Ns(30), works=(10, 10, 15))],
        1,
        duration_s=1.0,
        runtime=lambda batch, works: Ran(max(works)),
    )
    assert (outcome.good, outcome.late, outcome.dropped) == (2, 1, 0)
    assert outcome.bad_share == pytest.approx(1 / 3)
    assert outcome.good_of == [2] and outcome.all_of == [3]
