"""`bench qos`: how samples are counted, the timeline from a journal, and a whole run with fakes."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from tenantdl.bench import qos, report
from tenantdl.bench.envelope import read_results
from tenantdl.bench.qos_timeline import WINDOW, read_timeline
from tenantdl.errors import ExecutionError, UserError
from tenantdl.ids import CoreId, LaneId, ModelId, RequestId, TenantId
from tenantdl.load.issuer import BROKEN, DROPPED, Sample
from tenantdl.load.workload import parse_workload
from tenantdl.machine import usable_cores
from tenantdl.sched.config import LaneSpec, ModelSpec, SchedulerConfig, TenantSpec, one_core_plan
from tenantdl.sched.journal import entry_line, header_line, replay
from tenantdl.sched.messages import BlockFinished, Gathered, Launch, LaunchId, RequestArrived, Tick
from tenantdl.units import MS, Ns
from tests.exec.fake_lane_backend import fake_bundle

TEXT = """
name = "two"
bundles = "{bundles}"
[machine]
cores = [{core}]
[load]
rate = 40
duration_s = 2
[[tenant]]
name = "quick"
bundle = "fake:4:100"
qos_ms = 10000
share = 3
[[tenant]]
name = "slow"
bundle = "fake:8:1000"
qos_ms = {slow_qos}
"""


def text(bundles: str = ".", slow_qos: float = 20000) -> str:
    return TEXT.format(bundles=bundles, core=usable_cores()[0], slow_qos=slow_qos)


def sample(stream: int, latency_ms: float, status: int = 200) -> Sample:
    return Sample(stream, Ns(0), Ns(MS), Ns(round(latency_ms * MS)), status)


def test_attainment_counts_everything_that_was_scheduled() -> None:
    workload = parse_workload(text(slow_qos=50))
    samples = [
        *(sample(0, 20) for _ in range(6)),
        sample(0, 5, 429),
        sample(0, 5, DROPPED),
        sample(1, 50),
        sample(1, 50.1),
        sample(1, 1, BROKEN),
        sample(1, 1, 503),
    ]
    quick, slow, both = qos.summarize(workload, samples)
    assert (quick["tenant"], slow["tenant"], both["tenant"]) == ("quick", "slow", "all")
    assert (quick["requests"], quick["answered"], quick["in_time"]) == (8, 6, 6)
    assert quick["attainment"] == 6 / 8
    assert quick["refused"] == {"HTTP 429": 1, "dropped by the client": 1}
    assert (slow["in_time"], slow["attainment"], slow["answered"]) == (1, 1 / 4, 2)
    assert slow["p50_ms"] == pytest.approx(50.05)
    assert (both["in_time"], both["requests"], both["attainment"]) == (7, 12, 7 / 12)
    assert (quick["rate"], slow["rate"], both["rate"]) == (30, 10, 40)
    assert both["throughput"] == 8 / 2
    json.dumps([quick, slow, both])


def test_a_tenant_without_requests_has_no_attainment() -> None:
    _, slow, _ = qos.summarize(parse_workload(text()), [sample(0, 1)])
    assert (slow["attainment"], slow["p99_ms"]) == (None, None)


LAUNCHES = ((7, 2), (8, 3), (9, 2), (10, 2))


def launch(number: int, request: int) -> Launch:
    return Launch(
        launch=LaunchId(number),
        lane=LaneId(0),
        request=RequestId(request),
        arena=0,
        begin=0,
        ends=(1,),
        preempt=True,
        earliest=Ns(0),
        latest=Ns(0),
        cores=(CoreId(4), CoreId(5)),
        variant=0,
        wanted=1,
    )


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    """Request 1 warms up; request 2 is preempted by 3 at 1000 ms; a lone block at 5 ms."""
    config = SchedulerConfig(
        policy="edf",
        lanes=(LaneSpec(LaneId(0), (CoreId(4), CoreId(5))),),
        models=(ModelSpec(ModelId("m"), (one_core_plan((MS, MS, MS)),)),),
        tenants=(TenantSpec(TenantId("t"), 4, 2), TenantSpec(TenantId("u"), 4, 2)),
    )
    lines = [header_line(config)]
    for number, tenant in ((1, "t"), (2, "t"), (3, "u"), (4, "u")):
        arrived = RequestArrived(
            RequestId(number), TenantId(tenant), ModelId("m"), 0, Ns(1), Ns(2), 0
        )
        launches = [launch(at, of) for at, of in LAUNCHES if of == number]
        lines.append(entry_line(Ns(0), arrived, launches))
    for request, begin, end, at, follows in (
        (1, 0, 3, 2, None),
        (4, 0, 3, 5, None),
        (2, 0, 1, 1000, 8),
        (3, 0, 3, 1003, 9),
        # Not a preemption: the request's own next launch takes over.
        (2, 1, 2, 1004, 10),
        (2, 2, 3, 1005, None),
    ):
        done = BlockFinished(
            LaneId(0),
            LaunchId(7),
            RequestId(request),
            begin,
            end,
            Ns((end - begin) * MS),
            Ns(at * MS),
            None if follows is None else LaunchId(follows),
        )
        lines.append(entry_line(Ns(at * MS), done, []))
    file = tmp_path / "journal.jsonl"
    file.write_bytes(b"".join(lines))
    return file


def test_the_timeline_shows_where_requests_were_preempted(journal: Path) -> None:
    timeline = read_timeline(journal, after=1)
    assert (timeline.total, timeline.preemptions, timeline.busy) == (5, 1, {0: 9 * MS})
    assert timeline.lanes == {0: (4, 5)}
    assert [(b.request, b.tenant, b.begin, b.end, b.preempted) for b in timeline.blocks] == [
        (2, "t", 0, MS, True),
        (3, "u", MS, 4 * MS, False),
        (2, "t", 4 * MS, 5 * MS, False),
        (2, "t", 5 * MS, 6 * MS, False),
    ]
    assert all(block.begin <= WINDOW for block in timeline.blocks)


def test_batches_are_on_the_timeline_as_their_tenants(journal: Path) -> None:
    arrived = RequestArrived(RequestId(1 << 31), TenantId("u"), ModelId("m"), 0, Ns(1), Ns(2), 0)
    gathered = Gathered(arrived, (RequestId(2), RequestId(3)))
    done = BlockFinished(
        LaneId(0), LaunchId(99), arrived.request, 0, 3, Ns(MS), Ns(2000 * MS), None
    )
    with journal.open("ab") as file:
        file.write(entry_line(Ns(1999 * MS), Tick(), [gathered]))
        file.write(entry_line(Ns(2000 * MS), done, []))
    assert read_timeline(journal, after=1).total == 6
    # All its members were of the warm-up.
    assert read_timeline(journal, after=3).total == 1


def test_an_empty_journal_gives_an_empty_timeline(tmp_path: Path, journal: Path) -> None:
    (tmp_path / "empty").write_bytes(journal.read_bytes().splitlines(keepends=True)[0])
    assert read_timeline(tmp_path / "empty").blocks == []


@pytest.fixture
def bundles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    fakes = Path(__file__).parents[1] / "exec"
    monkeypatch.setenv("PYTHONPATH", f"{fakes}:{fakes.parents[1]}")
    fake_bundle(tmp_path, "q", 4, 100)
    fake_bundle(tmp_path, "s", 8, 1000)
    return tmp_path


def test_a_whole_run_leaves_results_a_journal_and_a_page(bundles: Path) -> None:
    (bundles / "w.toml").write_text(text(str(bundles)))
    files = {name: bundles / "out" / name for name in ("r.json", "r.html", "j.jsonl")}
    result = qos.run(
        bundles / "w.toml",
        rate=30,
        policy="model-fcfs",
        json=files["r.json"],
        report=files["r.html"],
        journal=files["j.jsonl"],
        command="again <please>",
        backend="fake_lane_backend",
    )
    assert [row["attainment"] for row in result.rows] == [1, 1, 1]
    assert result.rows[-1]["rate"] == 30
    envelope = read_results(files["r.json"])
    assert envelope.results == result.rows
    assert (envelope.seed, envelope.command) == (1, "again <please>")
    lines = files["j.jsonl"].read_bytes().splitlines()
    assert replay(lines).agreed == len(lines) - 1
    page = files["r.html"].read_text()
    assert "again &lt;please&gt;" in page and "<b>model-fcfs</b>" in page
    assert page.count("<svg") == 3
    for start in (i for i in range(len(page)) if page.startswith("<svg", i)):
        ElementTree.fromstring(page[start : page.index("</svg>", start) + 6])
    assert page == report.page(result)


def test_an_unknown_policy_is_a_user_error(bundles: Path) -> None:
    workload = parse_workload(text(str(bundles)))
    with pytest.raises(UserError, match="'edff' is unknown, did you mean 'edf'"):
        qos.run(workload, policy="edff")


def test_the_same_seed_gives_the_same_arrivals(bundles: Path) -> None:
    workload = parse_workload(text(str(bundles)))
    catalogue = qos.open_catalogue(workload)
    first, again = (qos._streams(workload, catalogue, bundles) for _ in range(2))
    assert first == again
    assert first[0].times != first[1].times


def test_a_model_that_never_answers_is_found_before_the_run(
    bundles: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workload = parse_workload(text(str(bundles), slow_qos=0.001) + "timeout_ms = 0.001\n")
    with pytest.raises(ExecutionError, match=r"tenant slow: no warm-up .*HTTP 503"):
        qos.run(workload, backend="fake_lane_backend")


def test_a_page_that_cannot_be_written_is_a_user_error(journal: Path, tmp_path: Path) -> None:
    workload = parse_workload(text())
    rows = qos.summarize(workload, [])
    latencies = {"quick": np.empty(0), "slow": np.empty(0)}
    result = qos.Result(workload, rows, latencies, read_timeline(journal), "x")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written"):
        report.write_report(tmp_path / "file" / "r.html", result)
