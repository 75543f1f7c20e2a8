"""Operators alone: what they are called and cost, turns, ceilings, and a tiny model end to end."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import onnx
import pytest

from tenantdl.bench import cache, kernels, roofline
from tenantdl.bench.operator_profiles import PROFILES, take_turns
from tenantdl.bench.peers import Job
from tenantdl.compile.frontend import load_graph
from tenantdl.errors import UserError
from tenantdl.machine import usable_cores
from tests.nets import Net

MACHINE = roofline.Machine(
    1, 100.0, (roofline.Level("L2", 1000, 50.0), roofline.Level("memory", math.inf, 5.0))
)


class FakeProfile:
    """Takes 1 µs longer with each call."""

    def __init__(self) -> None:
        self.calls = 0

    def call(self) -> None:
        self.calls += 1

    def times_us(self) -> list[float]:
        return [float(i) for i in range(self.calls)]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Two equal convolutions, a strided one and a product."""
    net = Net()
    x = net.input(1, 32, 14, 14)
    w = net.weight(32, 32, 3, 3)
    y = net.op("Conv", net.op("Relu", net.op("Conv", x, w, pads=[1] * 4)), w, pads=[1] * 4)
    z = net.op("Conv", y, net.weight(16, 32, 1, 1), strides=[2, 2])
    flat = net.op("Flatten", z)
    net.output(net.op("MatMul", flat, net.weight(16 * 49, 24)))
    file = tmp_path / "net.onnx"
    onnx.save(net.model(), file)
    return file


def test_the_first_call_of_a_turn_does_not_count() -> None:
    both = {"a": FakeProfile(), "b": FakeProfile()}
    assert take_turns(both, rounds=2, turn=2) == {name: [1.0, 2.0, 4.0, 5.0] for name in "ab"}


def test_the_ceiling_is_arithmetic_or_reading_whichever_takes_longer() -> None:
    assert MACHINE.least_s(200e9, 100) == pytest.approx(2.0)
    assert MACHINE.least_s(1.0, 1000) == pytest.approx(1000 / 50e9)
    assert MACHINE.least_s(1.0, 1001) == pytest.approx(1001 / 5e9)


def test_operators_are_named_by_shapes_and_unusual_attributes(model: Path) -> None:
    graph = load_graph(model)
    texts = {kernels.describe(graph, n): kernels.flops(graph, n) for n in graph.nodes}
    assert texts == {
        "Conv 1x32x14x14 32x32x3x3 pads=1,1,1,1": 2 * 32 * 196 * 32 * 9,
        "Relu 1x32x14x14 varying": 0,
        "Conv 1x32x14x14 16x32x1x1 strides=2,2": 2 * 16 * 49 * 32,
        "Flatten 1x16x7x7 varying": 0,
        "MatMul 1x784 784x24": 2 * 784 * 24,
    }


@pytest.mark.parametrize("peer", sorted(PROFILES))
def test_a_peer_says_what_its_operator_took(peer: str, model: Path) -> None:
    pytest.importorskip(peer)
    inputs = {"x0": np.ones((1, 32, 14, 14), np.float32)}
    profile = PROFILES[peer](Job(model, inputs, usable_cores()[:1]))
    profile.call()
    profile.call()
    times = profile.times_us()
    assert len(times) == 2
    assert all(0 < time < 1e6 for time in times)


def test_distinct_operators_are_measured(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TENANTDL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(roofline, "measure", lambda cores: MACHINE)
    settings = kernels.Settings(against=(), runs=5)
    rows, failures = kernels.measure([str(model)], settings, lambda *_: None)
    assert failures == []
    assert [(row["count"], row["kind"], row["target"]) for row in rows] == [
        *((2, "Conv", "tenantdl"), (1, "Conv", "tenantdl"), (1, "MatMul", "tenantdl"))
    ]
    for row in rows:
        assert row["runs"] >= 5
        assert row["gflops"] == pytest.approx(row["flops"] / row["median_us"] / 1e3)
        least_us = MACHINE.least_s(row["flops"], row["bytes"]) * 1e6
        assert row["share"] == pytest.approx(least_us / row["median_us"])
    assert rows[0]["bytes"] == 4 * (2 * 32 * 196 + 32 * 32 * 9)
    assert list(cache.folder().glob("operator-*.bundle"))


def test_a_model_without_such_operators_is_refused(model: Path) -> None:
    settings = kernels.Settings(kinds=("Softmax",))
    with pytest.raises(UserError, match="net has none of Softmax"):
        kernels.measure([str(model)], settings, lambda *_: None)


def test_ceilings_of_this_machine_are_measured() -> None:
    machine = roofline.measure(usable_cores()[:1])
    assert machine.gflops > 1
    assert [level.name for level in machine.levels] == ["L2", "L3", "memory"]
    assert all(level.gbytes_s > 0.1 for level in machine.levels)
