"""Tuning records: written, read, used, and only for what they name; measuring fills them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from nets import Net, reference

from tenantdl.bundle.load import load_bundle
from tenantdl.compile import tune as tuning
from tenantdl.compile.frontend import load_graph
from tenantdl.compile.lower import lower
from tenantdl.compile.pipeline import Tuning, compile_model
from tenantdl.compile.schedules import Record, Schedules, ranked, read_records, write_records
from tenantdl.compile.target import parse_target
from tenantdl.errors import UserError
from tenantdl.exec.runner import Runner


def _record(key: str, schedule: str) -> Record:
    return Record(key, schedule, (10, 6), (12, 7))


def test_a_record_beats_the_prediction_where_its_candidate_exists() -> None:
    schedules = Schedules([_record("a", repr((2, 14))), _record("b", repr("gone"))])
    chosen = schedules.pick("a", [(1, 28), (2, 14)])
    assert (chosen.schedule, chosen.settled) == ((2, 14), True)
    chosen = schedules.pick("b", [(1, 28), (2, 14)])
    assert (chosen.schedule, chosen.settled) == ((1, 28), False)


def test_without_winograd4_tiles_stay_small() -> None:
    net = Net()
    net.output(net.op("Conv", net.input(1, 64, 56, 56), net.weight(64, 64, 3, 3), pads=[1] * 4))
    graph, target = load_graph(net.model()), parse_target("x86_64:sapphirerapids")
    points = {}
    for allowed in (True, False):
        (operator,) = (
            op
            for op in lower(graph, target, 1, Schedules(winograd4=allowed)).operators
            if op.kind == "conv2d_winograd"
        )
        points[allowed] = operator.choices[0].schedule.rows.points
    assert points == {True: 6, False: 4}


def test_ranks_stop_at_the_last_candidate() -> None:
    assert Schedules(rank=5).pick("a", ["x", "y"]).schedule == "y"
    assert Schedules(rank=5).pick("a", ["x"]).settled  # nothing to measure


def test_different_kinds_are_ranked_before_details() -> None:
    order = ranked([30, 11, 12, 21, 10], float, lambda n: n // 10)
    assert order == [10, 21, 30, 11, 12]


def test_records_survive_a_round_trip_and_newer_ones_win(tmp_path: Path) -> None:
    target, haswell = parse_target("native"), parse_target("x86_64:haswell")
    write_records([_record("a", "1"), _record("b", "2")], target, "m", tmp_path)
    write_records([_record("b", "3")], target, "m", tmp_path)
    write_records([_record("c", "4")], target, "other", tmp_path)
    found = {record.key: record.schedule for record in read_records(target, [tmp_path])}
    assert found == {"a": "1", "b": "3", "c": "4"}
    assert read_records(haswell, [tmp_path]) == []


def test_a_broken_log_is_named(tmp_path: Path) -> None:
    target = parse_target("native")
    file = write_records([_record("a", "1")], target, "m", tmp_path)
    with file.open("a") as log:
        log.write('{"key": 1}\n')
    with pytest.raises(UserError, match=r":2: not a tuning record"):
        read_records(target, [tmp_path])


def test_unknown_effort() -> None:
    with pytest.raises(UserError, match="unknown tuning effort 'some': one of none, fast, full"):
        tuning.effort_of("some")


def test_measured_schedules_are_recorded_and_reused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(tuning.BUDGETS, "fast", tuning.Budget(2, 60.0, 0.2))  # type: ignore[arg-type]
    net = Net()
    x = net.op("Relu", net.op("Conv", net.input(1, 32, 14, 14), net.weight(48, 32, 1, 1)))
    net.output(net.op("Conv", x, net.weight(32, 48, 3, 3), pads=[1] * 4))
    logs = tmp_path / "logs"
    compile_model(net.model(), tmp_path / "net", name="net", tuning=Tuning("fast", logs))
    (file,) = logs.glob("net/*.jsonl")
    keys = [json.loads(line)["key"] for line in file.read_text().splitlines()]
    assert any(key.startswith("algorithm 1x48x14x14 to 32 k3x3") for key in keys)
    assert any(key.startswith("conv2d 1x32x14x14 to 48 k1x1") for key in keys)
    before = file.read_bytes()
    compile_model(net.model(), tmp_path / "net", name="net", tuning=Tuning("fast", logs))
    assert file.read_bytes() == before  # all settled: nothing was measured again
    results = Runner(load_bundle(tmp_path / "net")).run(net.inputs)
    for name, expected in reference(net).items():
        np.testing.assert_allclose(results[name], expected, rtol=1e-4, atol=1e-4)
