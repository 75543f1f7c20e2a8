"""Runs in virtual time: determinism, every policy, the metric, the search."""

from __future__ import annotations

import dataclasses

import msgspec
import numpy as np
import pytest

from tenantdl.load.published import on_bundles
from tenantdl.load.workload import Workload, parse_workload
from tenantdl.sched.config import RESERVE, PlanSpec, VariantSpec
from tenantdl.sched.costs import PlanCosts
from tenantdl.sched.journal import entry_line, header_line, replay
from tenantdl.sched.policies.names import POLICIES
from tenantdl.sim import simulate
from tenantdl.sim.contention import CONTENTION
from tenantdl.sim.machines import MachineFile, load_machine
from tenantdl.sim.profiles import profile
from tenantdl.sim.search import PRECISION, find_qps
from tenantdl.sim.simulate import Scenario, run, scheduler_config
from tenantdl.units import MS, Ns

TEXT = """
name = "pair"
[load]
rate = 60
[[tenant]]
name = "tiny"
bundle = "tiny.bundle"
profile = "tiny_yolov2"
qos_ms = 12
[[tenant]]
name = "google"
bundle = "google.bundle"
profile = "googlenet"
qos_ms = 15
"""
WORKLOAD: Workload = parse_workload(TEXT)
NAMES = [*sorted(POLICIES), "fixed-block(11)"]


def scenario(policy: str, rate: float = 80, requests: int = 60, **changes: object) -> Scenario:
    machine = msgspec.structs.replace(load_machine("64-core"), **changes)
    return Scenario(WORKLOAD, machine, policy, rate, requests=requests)


def journal(which: Scenario) -> list[bytes]:
    lines = [header_line(scheduler_config(which))]
    run(which, observer=lambda now, event, out: lines.append(entry_line(now, event, out)))
    return lines


@pytest.mark.parametrize("policy", NAMES)
def test_every_policy_answers_everyone_and_replays_to_the_byte(policy: str) -> None:
    which = scenario(policy)
    lines = journal(which)
    assert lines == journal(which)
    assert replay(lines, check=True).agreed == len(lines) - 1
    result = run(which)
    assert len(result.outcome.answers) > 40
    assert len({a.arrived.request for a in result.outcome.answers}) == len(result.outcome.answers)
    assert 0 < result.row()["core_usage"] <= 64
    assert result.outcome.counts.launches >= len(result.outcome.answers) - 5


def test_seeds_differ_and_rows_do_not_change() -> None:
    first, again = run(scenario("tenantdl")).row(), run(scenario("tenantdl")).row()
    assert msgspec.json.encode(first) == msgspec.json.encode(again)
    other = Scenario(WORKLOAD, load_machine("64-core"), "tenantdl", 80.0, seed=2, requests=60)
    assert run(other).row() != first
    keys = "workload machine policy seed qps_at_95 mean_latency_ms p95_ms p99_ms core_usage"
    assert list(first)[:10] == [*keys.split(), "conflict_rate"]


def test_alone_on_the_machine_a_request_takes_what_the_profile_says() -> None:
    quiet: dict[str, object] = dict(noise=0.0, handover_us=0.0, boundary_us=0.0, resize_us=0.0)
    latencies = run(scenario("prema", rate=1, requests=20, **quiet)).latencies_ms["google"]
    whole = PlanCosts(profile("googlenet"), Ns(MS), 64).at(0, 64).remaining(0)
    assert max(latencies) == min(latencies) == pytest.approx(whole / MS, abs=1e-5)


def test_block_times_spread_as_a_machine_file_says() -> None:
    quiet: dict[str, object] = dict(noise=0.5, handover_us=0.0, boundary_us=0.0, resize_us=0.0)
    whole = PlanCosts(profile("googlenet"), Ns(MS), 64).at(0, 64).remaining(0) / MS
    twice = run(scenario("prema", rate=1, requests=20, spread=(2.0,), **quiet))
    assert max(twice.latencies_ms["google"]) == pytest.approx(2 * whole, abs=1e-5)
    either = run(scenario("prema", rate=1, requests=200, spread=(1.0, 1.0, 4.0), **quiet))
    latencies = np.array(either.latencies_ms["google"]) / whole
    assert latencies.min() == pytest.approx(1, abs=0.01)
    assert latencies.max() == pytest.approx(4, abs=0.01)
    assert latencies.mean() == pytest.approx(2, rel=0.2)


def test_contention_slows_down_and_can_be_switched_off() -> None:
    together = scenario("static-partition", rate=150, requests=150)
    alone = dataclasses.replace(together, contention="none")
    weak = scenario("static-partition", rate=150, requests=150, contention=0.2)
    means = [run(which).row()["mean_latency_ms"] for which in (alone, weak, together)]
    assert means == sorted(means)
    assert means[2] > 1.05 * means[0]
    assert set(CONTENTION) >= {"linear", "none"}


def test_two_sockets_disturb_each_other_less_than_one() -> None:
    one = run(scenario("tenantdl", rate=300, requests=200))
    two_sockets: MachineFile = load_machine("2x32-core")
    two = run(Scenario(WORKLOAD, two_sockets, "tenantdl", 300.0, requests=200))
    assert one.row()["machine"] != two.row()["machine"]
    assert two.attainment != one.attainment


def test_the_search_ends_at_a_rate_that_holds_and_the_next_does_not() -> None:
    start = scenario("planaria", rate=500, requests=150)
    found = find_qps(start, 0.95)
    assert found.attainment >= 0.95
    assert found.scenario.rate < 500
    above = dataclasses.replace(start, rate=found.scenario.rate * PRECISION**2)
    assert run(above).attainment < 0.95 + 0.02


def test_what_a_request_costs_outside_the_lanes_is_added() -> None:
    start = scenario("tenantdl", rate=300, requests=50)
    slower = msgspec.structs.replace(start.machine, request_us=250.0)
    later = run(dataclasses.replace(start, machine=slower))
    for name, values in run(start).latencies_ms.items():
        assert later.latencies_ms[name] == pytest.approx([value + 0.25 for value in values])


def test_what_requests_spend_outside_the_lanes_is_spread_as_measured() -> None:
    within = scenario("tenantdl", requests=400)
    spread = dataclasses.replace(
        within,
        machine=msgspec.structs.replace(within.machine, request_us=1e5, request_p95_us=3e5),
    )

    def answers(which: Scenario) -> list[float]:
        return [t for times in run(which).latencies_ms.values() for t in times]

    outside = [a - b for a, b in zip(answers(spread), answers(within), strict=True)]
    assert np.median(outside) == pytest.approx(100, rel=0.15)
    assert np.percentile(outside, 95) == pytest.approx(300, rel=0.25)


def test_a_search_for_every_tenant_ends_below_one_for_all_requests() -> None:
    start = scenario("tenantdl", rate=300, requests=300)
    each = find_qps(start, 0.95, each=True)
    assert each.least >= 0.95
    assert each.scenario.rate < find_qps(start, 0.95).scenario.rate
    row = each.row()
    assert row["attainment_least"] == min(row["attainment_by_tenant"].values())


def test_a_run_without_hope_is_cut_short() -> None:
    full = run(scenario("prema", rate=2000, requests=300))
    cut = run(scenario("prema", rate=2000, requests=300), misses_max=10)
    assert len(cut.outcome.answers) < len(full.outcome.answers) / 2


@pytest.mark.parametrize(("handover_us", "reserve"), [(5.0, 0), (75.0, RESERVE)])
def test_lanes_that_are_told_ahead_keep_the_reserve_that_a_daemon_keeps(
    handover_us: float, reserve: int
) -> None:
    config = scheduler_config(scenario("tenantdl", handover_us=handover_us))
    assert (config.ahead, config.reserve) == (reserve > 0, reserve)


@pytest.mark.parametrize(("said", "wide"), [({}, 30), ({"tiny": 2.0}, 20)])
def test_compiled_models_are_slowed_down_as_a_machine_file_says(
    monkeypatch: pytest.MonkeyPatch, said: dict[str, float], wide: int
) -> None:
    plan = PlanSpec((VariantSpec((1, 2), ((20,), (10,))),))
    monkeypatch.setattr(simulate, "bundle_plan", lambda path: plan)
    start = scenario("tenantdl", slower={"tiny": 3.0}, slower_wide=said)
    config = scheduler_config(dataclasses.replace(start, workload=on_bundles(WORKLOAD)))
    costs = {m.model: m.plans[0].variants[0].costs for m in config.models}
    assert costs == {"tiny": ((60,), (wide,)), "google": ((20,), (10,))}
