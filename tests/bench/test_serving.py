"""`bench qos --target`: search, partition, counting, refusals, and whole runs with fakes."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from tenantdl.bench.envelope import read_results
from tenantdl.bench.serving import compare, page, simulated, targets, usage
from tenantdl.bench.serving.compare import Settings
from tenantdl.bench.serving.partition import Demand, best_partition
from tenantdl.bench.serving.probe import Probe, Tally, tally
from tenantdl.bench.serving.rows import earlier_rates
from tenantdl.bench.serving.search import find_rates
from tenantdl.bench.serving.targets import TARGETS, Setup, check_target
from tenantdl.cli.main import run
from tenantdl.errors import UserError
from tenantdl.ids import CoreId
from tenantdl.load.issuer import BROKEN, DROPPED, OK, Sample
from tenantdl.load.workload import Workload, parse_workload
from tenantdl.machine import usable_cores
from tenantdl.units import MS, Ns
from tests.exec.fake_lane_backend import fake_bundle

HERE = Path(__file__).parent
TEXT = """
name = "two"
bundles = "{bundles}"
[machine]
cores = [{core}]
[load]
rate = 40
duration_s = 1
[[tenant]]
name = "quick"
bundle = "fake:4:100"
qos_ms = 5000
share = 3
[[tenant]]
name = "slow"
bundle = "fake:8:1000"
qos_ms = 9000
"""


def probed(rate: float, share: float, *, stopped: bool = False) -> Probe:
    one = Tally("t", 10.0, 1000, round(1000 * share), 1000, [1.0, 2.0])
    return Probe(rate, 2.0, (one,), stopped, 1.5, 0.2, 0, [], 0)


def limits(at_95: float, at_99: float) -> Callable[[float], Probe]:
    def drive(rate: float) -> Probe:
        if rate > at_95:
            return probed(rate, 0.5, stopped=True)
        return probed(rate, 0.96 if rate > at_99 else 1.0)

    return drive


@pytest.mark.parametrize("start", [0.5, 40.0, 90.0, 3000.0])
def test_the_search_finds_both_rates_to_within_a_step(start: float) -> None:
    found = find_rates(limits(100.0, 60.0), (0.99, 0.95), start=start, step=1.1, stride=4)
    assert 100 / 1.1 <= found.rates[0.95] <= 100
    assert 60 / 1.1 <= found.rates[0.99] <= 60
    assert len(found.probes) <= 24
    best = found.at(0.95)
    assert best is not None and best.rate == found.rates[0.95]


def test_a_search_near_an_earlier_rate_takes_few_probes() -> None:
    found = find_rates(limits(100.0, 97.0), (0.95, 0.99), start=96.0, step=1.1, stride=1)
    assert found.rates == {0.95: 96.0, 0.99: 96.0}
    assert len(found.probes) == 2


def test_what_never_holds_has_the_rate_zero() -> None:
    found = find_rates(limits(0.0, 0.0), (0.95,), start=10.0, step=1.5, stride=2)
    assert found.rates == {0.95: 0.0}
    assert found.at(0.95) is None


def test_one_tenant_missing_out_is_enough_to_fail() -> None:
    good = Tally("a", 10.0, 1000, 1000, 1000, [1.0])
    bad = Tally("b", 10.0, 20, 18, 20, [1.0])
    both = Probe(1.0, 1.0, (good, bad), False, 0, 0, 0, [], 0)
    assert not both.holds(0.95)
    assert both.worst == 0.9
    assert both.goodput == 1018


def test_everything_due_counts() -> None:
    samples = [
        Sample(0, Ns(0), Ns(0), Ns(ms * MS), status)
        for ms, status in ((5, OK), (11, OK), (1, 503), (1, DROPPED), (1, BROKEN))
    ]
    counted = tally("t", 10.0, samples)
    assert (counted.due, counted.in_time, counted.answered) == (5, 1, 2)
    assert counted.latencies_ms == [5.0, 11.0]


def test_a_partition_keeps_short_requests_from_long_ones() -> None:
    demands = {
        # Ten long ones come at once, now and then: on a core of their own they can take their time.
        "short": Demand([0.1 * step for step in range(1000)], takes_s=0.01, qos_s=0.015),
        "long": Demand(sorted([10.0 * step for step in range(10)] * 10), takes_s=0.05, qos_s=1.0),
    }
    parts, rate = best_partition(demands, (CoreId(0), CoreId(1)))
    assert set(parts["short"]).isdisjoint(parts["long"])
    assert rate > 1.0
    together, _ = best_partition({"only": demands["short"]}, (CoreId(3), CoreId(5)))
    assert together == {"only": (CoreId(3), CoreId(5))}


def test_usage_counts_this_process() -> None:
    mine = usage.usage(os.getpid())
    assert mine.processes >= 1 and mine.threads >= 1
    assert mine.descriptors > 2 and mine.memory_bytes > 1024**2
    assert usage.cpu_ns(os.getpid()) > 0


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("mlserver", r"not set up in .*: run scripts/peers/setup_mlserver\.sh"),
        ("rayserve", r"not set up in .*: run scripts/peers/setup_rayserve\.sh"),
        ("tritom", "unknown; known: sim, daemon"),
        ("triton", r"not set up in .*: run scripts/peers/setup_triton\.sh"),
    ],
)
def test_what_cannot_be_driven_is_refused_in_one_line(
    name: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TENANTDL_PEERS", str(tmp_path))
    with pytest.raises(UserError, match=says):
        check_target(name)


@pytest.fixture
def workload(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workload:
    monkeypatch.setenv("PYTHONPATH", f"{HERE.parent / 'exec'}:{HERE.parents[1]}")
    fake_bundle(tmp_path, "quick", 4, 100)
    fake_bundle(tmp_path, "slow", 8, 1000)
    return parse_workload(TEXT.format(bundles=tmp_path, core=usable_cores()[0]))


def test_the_daemon_and_the_simulator_on_one_trace(workload: Workload, tmp_path: Path) -> None:
    machine = tmp_path / "here.toml"
    machine.write_text(
        'name = "here"\nsource = "test"\ncores = 1\ndomain_cores = 1\nsocket_cores = 1\n'
        "bandwidth_gbs = 10\nhandover_us = 50\nboundary_us = 2\nresize_us = 0\nconflict_us = 0\n"
        "migrate_us = 0\n"
    )
    settings = Settings(
        targets=("daemon", "sim"),
        runs=1,
        rate=30.0,
        machine=str(machine),
        backend="fake_lane_backend",
    )
    file, report = tmp_path / "r.json", tmp_path / "r.html"
    rows = compare.run(workload, settings, json=file, page=report, command="again")
    daemon, sim = rows
    assert (daemon["target"], daemon["label"], daemon["run"]) == ("daemon", "measured", 1)
    assert (sim["target"], sim["label"]) == ("sim", "simulated")
    due = [row["probes"][0]["tenants"]["quick"]["due"] for row in rows]
    assert due[0] == due[1] > 0
    assert daemon["core_usage"] > 0 and daemon["client_core_usage"] > 0
    assert daemon["conflict_rate"] == 0 and daemon["timeline"]
    beside = sim["against_daemon"][0]
    assert beside["rate"] == 30.0
    assert beside["p50_error"] is not None
    assert read_results(file).results == json.loads(json.dumps(rows))
    text = report.read_text()
    assert text.count("<svg") == 4 and "Workload two" in text
    assert text == page.page(rows, "again")
    merged = tmp_path / "merged.html"
    assert run(["bench", "report", str(file), str(file), "-o", str(merged)]) == 0
    assert merged.read_text() == page.page(rows * 2, "again")


def test_an_unknown_machine_is_refused_before_anything_is_measured(workload: Workload) -> None:
    settings = Settings(targets=("daemon", "sim"), machine="nowhere.toml")
    said: list[str] = []
    with pytest.raises(UserError, match="nowhere"):
        compare.run(workload, settings, report=said.append)
    assert not said


def test_a_search_on_the_daemon(workload: Workload, tmp_path: Path) -> None:
    """Lanes sleep for the cost of their segments: one core does about 100 slow requests a second,
    and the targets are far away, so that what holds is a matter of counting."""
    settings = Settings(
        targets=("daemon",), runs=1, duration_s=0.5, step=3.0, backend="fake_lane_backend"
    )
    said: list[str] = []
    (row,) = compare.run(workload, settings, report=said.append)
    assert row["qps_at_95"] > 0 and row["qps_at_99"] > 0
    assert [p["rate"] for p in row["probes"]] == sorted(p["rate"] for p in row["probes"])
    assert said[-1].startswith("daemon: ")


def test_rates_at_which_nothing_is_due_are_not_tried() -> None:
    tried: list[float] = []

    def drive(rate: float) -> Probe:
        tried.append(rate)
        return Probe(rate, 1.0, (Tally("t", 1.0, 1, 0, 1, [9.0]),), False, 0, 0, 0, [], 0)

    found = find_rates(drive, (0.95, 0.99), start=8.0, step=2.0, stride=1, least=1.0)
    assert found.rates == {0.95: 0.0, 0.99: 0.0}
    assert min(tried) >= 1.0


def test_a_search_begins_at_earlier_rates(workload: Workload, tmp_path: Path) -> None:
    from tenantdl.bench.envelope import write_results

    file = tmp_path / "before.json"
    rows = [{"workload": "two", "target": "daemon", "qps_at_95": rate} for rate in (10, 12, 20)]
    write_results(file, rows, command="x", seed=1)
    assert earlier_rates((file,), "two") == {"daemon": 12.0}
    with pytest.raises(UserError, match="holds no rates for workload other"):
        earlier_rates((file,), "other")


def test_the_simulator_s_errors_beside_the_daemon() -> None:
    ours = Tally("t", 10.0, 4, 4, 4, [4.0, 5.0, 6.0, 9.0])
    probe = Probe(1.0, 1.0, (ours,), False, 0, 0, 0, [], 0)
    said = simulated.errors(probe, {"rate": 1.0, "worst": 0.75, "p50_ms": 5.0, "p95_ms": 10.0})
    assert said["p50_error"] == pytest.approx(0.1)
    assert said["p95_error"] == pytest.approx(8.55 / 10 - 1)
    assert said["attainment_error"] == 0.25


@pytest.mark.parametrize(
    ("name", "cores"), [("daemon", ()), ("daemon-1", (1,)), ("daemon-2", (2,))]
)
def test_launches_of_a_daemon_can_be_kept_on_so_many_cores(
    name: str, cores: tuple[int, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[Workload] = []

    @contextlib.contextmanager
    def daemon(workload: Workload, **options: object) -> Iterator[SimpleNamespace]:
        started.append(workload)
        yield SimpleNamespace(url="http://here", pid=1, grpc=None)

    monkeypatch.setattr(targets, "running_daemon", daemon)
    workload = parse_workload(TEXT.format(bundles=tmp_path, core=0))
    with TARGETS[name](Setup(workload, tmp_path)) as served:
        assert served.url == "http://here"
    assert started[0].scheduler.cores == cores
    assert started[0].tenant == workload.tenant
