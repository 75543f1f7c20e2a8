"""Latency: turns and counts under a fake clock, outputs compared, ratios; peers on a tiny model."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tenantdl.bench import cache, latency
from tenantdl.bench.latency import OURS, Contestant, Settings, alternate, difference
from tenantdl.bench.peers import PEERS, Job, on_cores
from tenantdl.bundle.manifest import Tensor
from tenantdl.errors import UserError
from tenantdl.machine import usable_cores
from tenantdl.units import MS

CORE = usable_cores()[:1]
X = np.arange(6, dtype=np.float32).reshape(2, 3)


class FakeTime:
    """A clock that only calls move; it also keeps who was called."""

    def __init__(self) -> None:
        self.now = 0
        self.calls: list[str] = []

    def contestant(self, name: str, ms: float) -> Contestant:
        def call() -> tuple[()]:
            self.now += round(ms * MS)
            self.calls.append(name)
            return ()

        return Contestant(call, CORE)


@pytest.fixture
def fake() -> FakeTime:
    return FakeTime()


def test_contestants_take_turns_and_times_are_theirs(fake: FakeTime) -> None:
    both = {"a": fake.contestant("a", 60), "b": fake.contestant("b", 80)}
    times = alternate(both, runs=5, seconds=0, clock=lambda: fake.now)
    assert times == {"a": [60 * MS] * 5, "b": [80 * MS] * 5}
    warm = latency.WARM_UP_CALLS
    assert fake.calls == ["a"] * warm + ["b"] * warm + ["a", "b"] * 5


def test_short_calls_get_an_untimed_one_first_and_several_a_turn(fake: FakeTime) -> None:
    times = alternate({"a": fake.contestant("a", 4)}, runs=6, seconds=0, clock=lambda: fake.now)
    assert len(times["a"]) == 6  # turns of 10 ms: two calls each
    assert len(fake.calls) == latency.WARM_UP_CALLS + 3 * (1 + 2)


def test_seconds_prolong_and_the_number_of_calls_is_bounded(
    fake: FakeTime, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = alternate({"a": fake.contestant("a", 100)}, runs=5, seconds=2, clock=lambda: fake.now)
    assert len(times["a"]) == 20
    monkeypatch.setattr(latency, "CALLS_MAX", 50)
    times = alternate({"a": fake.contestant("a", 1)}, runs=5, seconds=9e9, clock=lambda: fake.now)
    assert 50 < len(times["a"]) <= 50 + latency.TURN_CALLS_MAX


def test_affinity_is_back_after_turns(fake: FakeTime) -> None:
    before = os.sched_getaffinity(0)
    alternate({"a": fake.contestant("a", 1)}, runs=5, seconds=0, clock=lambda: fake.now)
    assert os.sched_getaffinity(0) == before


def test_difference_is_relative_to_their_largest_output() -> None:
    theirs = (np.array([1.0, -4.0]),)
    assert difference((np.array([1.0, -4.0]),), theirs) == 0
    assert difference((np.array([1.5, -4.0]),), theirs) == pytest.approx(0.125)
    assert difference((X, np.array([1.5, -4.0])), (X, *theirs)) == pytest.approx(0.125)
    assert difference((np.array([0.5]),), (np.array([0.0]),)) == 0.5
    assert difference((np.array([np.inf]),), (np.array([np.inf]),)) == 0


@pytest.mark.parametrize(
    "ours",
    [(), (X, X), (X[0],), (np.where(X == 1, np.nan, X),)],
    ids=["missing", "more", "misshaped", "nan"],
)
def test_outputs_that_do_not_match_up_differ_infinitely(ours: tuple[Any, ...]) -> None:
    assert difference(ours, (X,)) == math.inf


def test_ratio_is_to_the_better_peer() -> None:
    def row(model: str, target: str, ms: float) -> latency.Row:
        return {"model": model, "threads": 1, "target": target, "median_ms": ms}

    rows = [row("m", OURS, 3), row("m", "p", 4), row("m", "q", 6), row("n", OURS, 1)]
    assert latency.ratios(rows) == {("m", 1): 0.75}
    assert latency.geometric_mean([0.5, 2.0]) == pytest.approx(1)
    assert math.isnan(latency.geometric_mean([]))


@pytest.fixture
def doubling(tmp_path: Path) -> Path:
    """y = x + x; as some exporters do, it gives both symbolic dimensions one name."""
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", "N"]) for n in "xy")
    graph = helper.make_graph([helper.make_node("Add", ["x", "x"], ["y"])], "double", [x], [y])
    opset = [helper.make_opsetid("", 17)]
    file = tmp_path / "double.onnx"
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), file)
    return file


@pytest.mark.parametrize("peer", sorted(PEERS))
def test_peer_runs_a_model_and_leaves_the_affinity(peer: str, doubling: Path) -> None:
    pytest.importorskip(peer)
    before = os.sched_getaffinity(0)
    call = PEERS[peer](Job(doubling, {"x": X}, CORE))
    with on_cores(CORE):
        (y,) = call()
    assert os.sched_getaffinity(0) == before
    np.testing.assert_array_equal(y, 2 * X)


@pytest.mark.parametrize("peer", sorted(PEERS))
def test_what_a_peer_cannot_run_is_one_line(peer: str, tmp_path: Path) -> None:
    pytest.importorskip(peer)
    (tmp_path / "bad.onnx").write_bytes(b"not a model")
    with pytest.raises(UserError, match=f"bad.onnx: {peer} cannot run it") as caught:
        PEERS[peer](Job(tmp_path / "bad.onnx", {"x": X}, CORE))
    assert "\n" not in str(caught.value)


class FakeRunner:
    """A runner of three operators of two kinds, which take as long as they say."""

    plan = SimpleNamespace(calls=[SimpleNamespace(kind=kind) for kind in ("a", "b", "a")])

    def run(self, inputs: dict[str, Any]) -> dict[str, Any]:
        return {"y": 2 * inputs["x"]}

    def time_ns(self) -> list[int]:
        return [1 * MS, 5 * MS, 2 * MS]


@pytest.fixture
def fake_ours(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Our side without the compiler: the doubling model in NumPy."""
    monkeypatch.setattr(cache, "bundle", lambda model, **_: model.file)
    manifest = type(
        "M", (), {"plans": [type("P", (), {"inputs": [Tensor("x", "float32", (2, 3), 0)]})]}
    )
    monkeypatch.setattr(latency, "read_manifest", lambda _: manifest)
    monkeypatch.setattr(latency, "_open_ours", lambda *_: FakeRunner())
    yield


@pytest.mark.usefixtures("fake_ours")
def test_measure_gives_a_row_a_target_and_reports_failures(doubling: Path) -> None:
    pytest.importorskip("onnxruntime")
    heard: list[tuple[str, float]] = []
    settings = Settings(against=("onnxruntime",), threads=(1,), batch=2, runs=5)
    report = latency.measure(
        [str(doubling), "absent.onnx"], settings, lambda *phase: heard.append(phase)
    )
    ours, theirs = report.rows
    assert ours.keys() == {
        *("model", "batch", "threads", "cpu", "target", "runs", "calibration_ms"),
        *("median_ms", "p05_ms", "p95_ms", "kinds_ms"),
    }
    assert list(ours["kinds_ms"].items()) == [("b", 5.0), ("a", 3.0)]
    assert (ours["model"], ours["batch"], ours["threads"]) == ("double", 2, 1)
    assert (ours["target"], theirs["target"]) == (OURS, "onnxruntime")
    assert ours["p05_ms"] <= ours["median_ms"] <= ours["p95_ms"]
    assert ours["runs"] >= 5
    assert theirs["difference"] == 0
    (failure,) = report.failures
    assert failure.startswith("absent.onnx: neither a file nor a model of the zoo")
    assert "compiling" in heard[0][0] and "measuring on 1 of" in heard[-1][0]
    assert [part for _, part in heard] == [0, 1 / 4, 2 / 4]


def test_more_threads_than_cores_are_refused() -> None:
    with pytest.raises(UserError, match="9999 threads asked for"):
        latency.measure(["x"], Settings(threads=(9999,)), lambda *_: None)
