"""`bench chaos` and `bench soak`: verdicts on made-up runs, and short real ones with fakes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tenantdl.bench.envelope import read_results
from tenantdl.bench.serving import chaos, soak
from tenantdl.bench.serving.chaos import Injury, recovery
from tenantdl.bench.serving.checks import Check, one_answer_each, passed, replays
from tenantdl.bench.serving.usage import Usage
from tenantdl.ids import LaneId, ModelId, RequestId, TenantId
from tenantdl.load.issuer import BROKEN, OK, Outcome, Sample
from tenantdl.load.workload import Workload, parse_workload
from tenantdl.machine import usable_cores
from tenantdl.sched.config import LaneSpec, ModelSpec, SchedulerConfig, TenantSpec, one_core_plan
from tenantdl.sched.journal import entry_line, header_line
from tenantdl.sched.messages import Command, Complete, Reason, Reject, RequestArrived
from tenantdl.units import MS, SECOND, Ns
from tests.exec.fake_lane_backend import fake_bundle

FAKES = Path(__file__).parents[1] / "exec"
TEXT = """
name = "two"
bundles = "{bundles}"
[machine]
cores = {cores}
[load]
rate = 30
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


@pytest.fixture
def workload(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workload:
    monkeypatch.setenv("PYTHONPATH", f"{FAKES}:{FAKES.parents[1]}")
    fake_bundle(tmp_path, "quick", 4, 100)
    fake_bundle(tmp_path, "slow", 8, 1000)
    cores = list(usable_cores()[:2])
    return parse_workload(TEXT.format(bundles=tmp_path, cores=cores))


def test_lanes_are_killed_and_hung_and_nothing_is_lost(workload: Workload, tmp_path: Path) -> None:
    settings = chaos.Settings(
        kills=3, hangs=1, duration_s=10.0, hang_s=0.4, backend="fake_lane_backend"
    )
    file = tmp_path / "chaos.json"
    checks = chaos.run(workload, settings, json=file, command="again")
    assert [check.name for check in checks if not check.passed] == []
    assert checks[0].figure == "3 kills, 1 hangs"
    rows = read_results(file).results
    assert {row["check"] for row in rows} == {check.name for check in checks}


def test_a_short_soak(workload: Workload) -> None:
    settings = soak.Settings(duration_s=6.0, backend="fake_lane_backend")
    checks = soak.run(workload, settings)
    assert [check.name for check in checks if not check.passed] == []


def outcome(*latencies: tuple[float, float, int]) -> Outcome:
    """Requests of tenant 0: (due in s, latency in ms, status)."""
    samples = [
        Sample(0, Ns(round(due * SECOND)), Ns(0), Ns(round(ms * MS)), status)
        for due, ms, status in latencies
    ]
    return Outcome(samples, begun=0, stopped=False, cpu_ns=0, unlike=0)


def one_tenant() -> Workload:
    return parse_workload('[[tenant]]\nname = "t"\nbundle = "b"\nqos_ms = 50')


@pytest.mark.parametrize(("after_ms", "good"), [(45.0, True), (80.0, False)])
def test_only_what_is_due_a_second_after_an_injury_has_to_be_normal(
    after_ms: float, good: bool
) -> None:
    before = [(0.1 * step, 20.0, OK) for step in range(40)]
    # Just after an injury, just before the next, just after that.
    disturbed = [(5.5, 4000.0, OK), (6.98, 700.0, OK), (7.2, 900.0, 503)]
    after = [(6.5 + 0.01 * step, after_ms, OK) for step in range(40)]
    injuries = [Injury(5 * SECOND, "kill", 1), Injury(7 * SECOND, "hang", 1)]
    (check,) = recovery(one_tenant(), outcome(*before, *disturbed, *after), injuries)
    assert check.passed is good
    assert "of 40 after" in check.figure


def test_what_the_next_injury_may_have_hit_belongs_to_that_one() -> None:
    before = [(0.1 * step, 20.0, OK) for step in range(40)]
    after = [(6.5 + 0.01 * step, 20.0, OK) for step in range(40)]
    injuries = [Injury(5 * SECOND, "kill", 1), Injury(7 * SECOND, "kill", 1)]
    slow = parse_workload('[[tenant]]\nname = "t"\nbundle = "b"\nqos_ms = 400')
    # Within its target before the next one; and longer before.
    for due, good in ((6.65, True), (6.55, False)):
        hit = [(due, 900.0, 503)] * 20
        (check,) = recovery(slow, outcome(*before, *after, *hit), injuries)
        assert check.passed is good


def test_a_refusal_long_after_an_injury_is_not_normal() -> None:
    before = [(0.1 * step, 20.0, OK) for step in range(40)]
    after = [(6.5 + 0.01 * step, 1.0, 503) for step in range(40)]
    (check,) = recovery(one_tenant(), outcome(*before, *after), [Injury(5 * SECOND, "kill", 1)])
    assert not check.passed


def journal(path: Path, *answers: tuple[int, Command]) -> Path:
    """Requests 1 and 2, and who said what at request 2's arrival."""
    config = SchedulerConfig(
        policy="edf",
        lanes=(LaneSpec(LaneId(0), (usable_cores()[0],)),),
        models=(ModelSpec(ModelId("m"), (one_core_plan((1000,)),)),),
        tenants=(TenantSpec(TenantId("t"), 4, 2),),
    )
    lines = [header_line(config)]
    for number in (1, 2):
        event = RequestArrived(RequestId(number), TenantId("t"), ModelId("m"), 0, Ns(10), Ns(20), 0)
        lines.append(entry_line(Ns(number), event, [c for at, c in answers if at == number]))
    path.write_bytes(b"".join(lines))
    return path


def verdict(checks: list[Check]) -> list[bool]:
    return [check.passed for check in checks]


def test_lost_doubled_and_unexplained_answers_are_found(tmp_path: Path) -> None:
    done = [(2, Complete(RequestId(1))), (2, Reject(RequestId(2), Reason.EXPIRED))]
    fine = outcome((0, 1, OK), (0, 1, 503))
    assert verdict(one_answer_each(fine, journal(tmp_path / "a", *done))) == [True] * 4
    lost = one_answer_each(outcome((0, 1, BROKEN)), journal(tmp_path / "b", done[0]))
    assert verdict(lost) == [False, True, False, True]
    twice = one_answer_each(outcome((0, 1, 500)), journal(tmp_path / "c", *done, done[0]))
    assert verdict(twice) == [True, False, False, True]
    unlike = Outcome([Sample(0, Ns(0), Ns(0), Ns(1), OK)], 0, False, 0, unlike=1)
    assert verdict(one_answer_each(unlike, journal(tmp_path / "d", *done)))[3] is False
    # A request that no scheduler would answer so.
    assert not replays(journal(tmp_path / "e", *done)).passed
    assert not passed(twice)


def test_growth_is_found(tmp_path: Path) -> None:
    steady = [Usage(3, 0, 500 * 1024**2, 10, 40, 12)] * 100
    assert passed(soak.growth(steady))
    leaking = [
        Usage(3, 0, (500 + step) * 1024**2, 10, 40 + step // 2, 12 + step // 50)
        for step in range(100)
    ]
    bad = [check.name for check in soak.growth(leaking) if not check.passed]
    assert bad == ["no growth of memory", "no growth of descriptors", "no growth of threads"]
    assert not any(check.passed for check in soak.growth([]))


def test_drift_is_found() -> None:
    steady = [(0.1 * step, 30.0, OK) for step in range(400)]
    assert passed(soak.drift(one_tenant(), outcome(*steady), 40.0))
    rising = [(0.1 * step, 20.0 + 0.1 * step, OK) for step in range(400)]
    assert not passed(soak.drift(one_tenant(), outcome(*rising), 40.0))
