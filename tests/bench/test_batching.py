"""bench batching: which requests a bundle is asked with, rows, plots; a daemon of fakes driven."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from tenantdl.bench import batching, batching_cases, batching_requests
from tenantdl.bench.batching_runs import summaries
from tenantdl.bundle.manifest import MANIFEST, Manifest, Padding, Plan, Segment, Tensor
from tenantdl.errors import UserError
from tests.exec.fake_lane_backend import fake_bundle

KEYS = {"case", "policy", "slo_multiple", "rate", "finish_rate", "goodput"}


def manifest(lengths: tuple[int, ...], padding: Padding | None, folder: Path) -> Manifest:
    made = msgspec.json.decode(
        (fake_bundle(folder, "net", 2, 100) / MANIFEST).read_bytes(), type=Manifest
    )
    plans = tuple(
        Plan(
            batch,
            64,
            (Tensor("x", "float32", (batch, length, 2), 0),),
            (Tensor("y", "float32", (batch, 2), 0),),
            (),
            (Segment(0, 1, 1000 * length * batch),),
            "estimated",
        )
        for length in lengths
        for batch in (1, 4)
    )
    return msgspec.structs.replace(made, plans=plans, padding=padding)


def test_requests_are_as_long_as_the_bundle_can_take(tmp_path: Path) -> None:
    padded = manifest((8, 16, 64), Padding((("x", 1),), ()), tmp_path / "a")
    found = [tensors[0].shape for tensors in batching_requests.request_plans(padded, 1)]
    assert all(shape[0] == 1 and shape[2] == 2 and 1 <= shape[1] <= 64 for shape in found)
    assert len({shape[1] for shape in found}) > 5
    exact = manifest((8, 16, 64), None, tmp_path / "b")
    assert {t[0].shape[1] for t in batching_requests.request_plans(exact, 1)} == {8, 16, 64}
    one = manifest((8,), None, tmp_path / "c")
    assert len(batching_requests.request_plans(one, 1)) == 1


def test_simulated_rows_and_plots(tmp_path: Path) -> None:
    settings = batching.Settings(multiples=(1.5,), loads=(0.5, 2.0))
    out, plots = tmp_path / "rows.json", tmp_path / "plots"
    rows = batching.measure([], ["two-modes"], settings, json=out, plots=plots)
    assert json.loads(out.read_text())["results"] == json.loads(json.dumps(rows))
    assert all(row.keys() >= KEYS and 0 <= row["finish_rate"] <= 1 for row in rows)
    assert [file.name for file in plots.iterdir()] == ["batching-two-modes.png"]
    rate = {(r["policy"], r["load"]): r["finish_rate"] for r in rows}
    # Who knows that there are short requests serves half as many again under overload.
    assert rate["auto", 2.0] > 1.4 * rate["edf-p99", 2.0]
    assert rate["auto", 0.5] > 0.97 * max(rate[p, 0.5] for p in batching_cases.MODE_POLICIES)


def test_static_rows_have_goodput_and_use_of_slots(monkeypatch: pytest.MonkeyPatch) -> None:
    small = batching_cases.Static(1, 4, 1.0, 4.0, 25, 1.0)
    monkeypatch.setitem(batching_cases.STATIC, "small", small)
    rows = batching_cases.static_rows("small", ("deferred", "eager-window"), 1)
    assert all(row.keys() >= KEYS and row["finish_rate"] >= 0.99 for row in rows)
    assert len(rows[0]["slots_at_half"]) == 4


def test_several_runs_are_one_row_of_medians_and_their_spread(tmp_path: Path) -> None:
    bundle = fake_bundle(tmp_path, "net", 3, 2000, batches=(1, 2))
    settings = batching.Settings(
        ("eager", "auto"), (1.5,), (2.0,), 2.0, seed=7, cores=(0, 1), simulate=True, runs=3
    )
    rows = batching.measure([bundle], [], settings)
    assert [(row["seed"], row["policy"]) for row in rows] == [
        (seed, policy) for seed in (7, 8, 9) for policy in ("eager", "auto")
    ]
    one, two = summaries(rows)
    rates = sorted(row["finish_rate"] for row in rows if row["policy"] == "auto")
    assert one["policy"] == "eager" and two["finish_rate"] == rates[1] and two["runs"] == 3
    assert [two["finish_rate_min"], two["finish_rate_max"]] == [rates[0], rates[2]]
    assert rates[0] < rates[2], "seeds make a difference"


def test_unknown_cases_are_named() -> None:
    with pytest.raises(UserError, match="no case 'two-mode', did you mean 'two-modes'"):
        batching.measure([], ["two-mode"], batching.Settings())


def test_a_bundle_in_virtual_time(tmp_path: Path) -> None:
    bundle = fake_bundle(tmp_path, "net", 3, 2000, batches=(1, 2, 4))
    settings = batching.Settings(
        ("eager", "auto", "off"), (3.0,), (0.5, 3.0), 4.0, cores=(0, 1), simulate=True
    )
    rows = batching.measure([bundle], [], settings)
    assert all(row.keys() >= KEYS and row["label"] == "simulated" for row in rows)
    rate = {(r["policy"], r["load"]): r["finish_rate"] for r in rows}
    # Batches of this bundle take no longer than one request: four times the load is nothing to it.
    assert rate["auto", 0.5] > 0.95
    assert rate["auto", 3.0] > 1.5 * rate["off", 3.0]
    assert rate["auto", 3.0] >= 0.98 * rate["eager", 3.0]
