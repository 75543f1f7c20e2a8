"""Applications served as one model: passing tensors on, fan-out, refusals, clients that go."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from tenantdl.cli.main import run
from tenantdl.daemon import RunningDaemon, running_daemon
from tenantdl.daemon.catalogue import open_catalogue
from tenantdl.daemon.protocol.access import Access
from tenantdl.daemon.protocol.refusals import ProtocolError
from tenantdl.daemon.stages import with_stages
from tenantdl.errors import UserError
from tenantdl.load.client import Client
from tenantdl.load.workload import parse_workload
from tenantdl.machine import usable_cores
from tenantdl.sched.journal import read, replay
from tenantdl.sched.messages import RequestArrived
from tests.exec.fake_lane_backend import fake_bundle

HERE = Path(__file__).parent
SEGMENTS = 12
TEXT = f"""
    bundles = "BUNDLES"
    [machine]
    cores = [CORE]

    [[application]]
    name = "chain"
    slo_ms = 2000
    rate = 1
    [[application.module]]
    name = "a"
    bundle = "fake:{SEGMENTS}:200"
    [[application.module]]
    name = "b"
    bundle = "fake:{SEGMENTS}:1000"
    after = ["a"]
    [[application.module]]
    name = "c"
    bundle = "fake:{SEGMENTS}:200"
    after = ["b"]

    [[application]]
    name = "fan"
    slo_ms = 500
    rate = 1
    glue = "fake_glue:make"
    queue_max = 2
    timeout_ms = 5000
    [[application.module]]
    name = "first"
    bundle = "fake:{SEGMENTS}:1000"
    [[application.module]]
    name = "many"
    bundle = "fake:{SEGMENTS}:200"
    after = ["first"]
    fan_out = 3
    fan_out_max = 40
    calls_max = 4
    """


@pytest.fixture
def text(tmp_path: Path) -> str:
    fake_bundle(tmp_path, "quick", SEGMENTS, 200)
    fake_bundle(tmp_path, "slower", SEGMENTS, 1000)
    return TEXT.replace("BUNDLES", str(tmp_path)).replace("CORE", str(usable_cores()[0]))


Daemon = tuple[RunningDaemon, triton.InferenceServerClient]


@contextlib.contextmanager
def serving(text: str, journal: Path | None = None) -> Iterator[Daemon]:
    with (
        running_daemon(parse_workload(text), journal=journal, backend="fake_lane_backend") as one,
        triton.InferenceServerClient(one.url.removeprefix("http://"), network_timeout=60) as client,
    ):
        yield one, client


@pytest.fixture(autouse=True)
def _paths(monkeypatch: pytest.MonkeyPatch) -> None:
    paths = (HERE.parent / "exec", HERE, HERE.parents[1])
    monkeypatch.setenv("PYTHONPATH", ":".join(map(str, paths)))


@pytest.fixture
def daemon(text: str) -> Iterator[Daemon]:
    with serving(text) as both:
        yield both


def fan(client: triton.InferenceServerClient, count: int, mischief: float = 0) -> list[float]:
    n = triton.InferInput("n", [2], "INT32")
    n.set_data_from_numpy(np.array([count, mischief], np.int32))
    answer = client.infer("fan", [n])
    values = answer.as_numpy("value").tolist()
    texts = [text.decode() for text in answer.as_numpy("text")]
    assert texts == [f"n° {value:g}" for value in values]
    return [float(value) for value in values]


def test_one_call_runs_the_whole_graph(daemon: Daemon) -> None:
    _, client = daemon
    x = triton.InferInput("x", [1, 2], "FP32")
    x.set_data_from_numpy(np.array([[3, 7]], np.float32))
    answer = client.infer("chain", [x]).as_numpy("y")
    assert answer.tolist() == [[3 + 3 * SEGMENTS, 7]]
    # More calls than may be under way at once, and none.
    assert fan(client, 30) == [k + SEGMENTS for k in range(30)]
    assert fan(client, 0) == []
    metadata = client.get_model_metadata("fan")
    assert [output["datatype"] for output in metadata["outputs"]] == ["FP32", "BYTES"]
    stats = client.get_inference_statistics("fan")["model_stats"][0]["inference_stats"]
    assert stats["success"]["count"] == 2


def test_every_stage_has_the_arrival_and_deadline_of_the_whole(text: str, tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    with serving(text, journal) as (_, client):
        fan(client, 2)
    lines = journal.read_bytes().splitlines()
    events = [entry.event for entry in read(lines)[1]]
    first, *many = [event for event in events if isinstance(event, RequestArrived)]
    assert [event.tenant for event in (first, *many)] == ["fan.first", "fan.many", "fan.many"]
    assert many[0].deadline == many[1].deadline
    # Three calls of 12 segments × 200 µs come behind the first module, on one lane.
    assert many[0].deadline - first.deadline == 3 * SEGMENTS * 200_000
    assert len({event.expires for event in (first, *many)}) == 1
    assert replay(lines).agreed > 10


def test_a_failing_stage_ends_the_request_with_a_reason(daemon: Daemon) -> None:
    _, client = daemon
    with pytest.raises(InferenceServerException, match="in module many"):
        fan(client, 30, -2)
    with pytest.raises(InferenceServerException, match="at most 40"):
        fan(client, 41)
    with pytest.raises(InferenceServerException, match="negative count"):
        fan(client, -2)
    with pytest.raises(InferenceServerException, match="failed on this request"):
        fan(client, -1)
    for _ in range(20):  # no slot was lost
        assert fan(client, 5) == [k + SEGMENTS for k in range(5)]


def test_too_many_at_once_are_refused(daemon: Daemon) -> None:
    running, _ = daemon

    def ask(_: int) -> str:
        with triton.InferenceServerClient(
            running.url.removeprefix("http://"), network_timeout=60
        ) as client:
            try:
                return str(len(fan(client, 20)))
            except InferenceServerException as error:
                return str(error)

    with ThreadPoolExecutor(4) as pool:
        said = list(pool.map(ask, range(4)))
    assert "20" in said
    assert all(text == "20" or "queue is full" in text for text in said)
    assert any("queue is full" in text for text in said)


@pytest.mark.parametrize(
    ("old", "new", "match"),
    [
        ('glue = "fake_glue:make"', 'glue = "nonsense"', "unknown glue 'nonsense'"),
        ('name = "many"', 'name = "other"', "differ"),
        ('name = "fan"', 'name = "quick"', "name of a model"),
        (f'bundle = "fake:{SEGMENTS}:200"\n    after = ["first"]', 'bundle = "no"', "not a bundle"),
    ],
)
def test_what_does_not_fit_is_said_at_the_start(
    text: str, monkeypatch: pytest.MonkeyPatch, old: str, new: str, match: str
) -> None:
    monkeypatch.syspath_prepend(str(HERE))
    assert old in text
    workload = parse_workload(text.replace(old, new))
    with pytest.raises(UserError, match=match):
        open_catalogue(with_stages(workload))


def test_an_application_has_tokens_and_its_modules_are_nobodys(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(HERE))
    digest = hashlib.sha256(b"secret").hexdigest()
    workload = parse_workload(
        text.replace('name = "chain"', f'name = "chain"\ntoken_sha256 = ["{digest}"]')
    )
    catalogue = open_catalogue(with_stages(workload))
    access = Access(catalogue.tenants, (), catalogue.applications)
    chain, fan_out = catalogue.find("chain"), catalogue.find("fan")
    assert chain and fan_out
    for header, names in (("Bearer secret", {"chain"}), (None, {"fan"})):
        caller = access.caller(header)
        assert caller.tenants == names and not caller.operator
        seen = {one.name for one in catalogue.all() if caller.tenants.intersection(one.tenants)}
        assert seen == names
    with pytest.raises(ProtocolError, match="not valid"):
        access.caller("Bearer wrong")
    assert access.may_map_memory(access.caller(None))
    assert not access.may_map_memory(access.caller("Bearer secret"))


def test_an_application_is_shown_beside_its_stages(daemon: Daemon) -> None:
    running, client = daemon
    assert len(fan(client, 3)) == 3
    tenants = {tenant.name: tenant for tenant in Client(running.url).status().tenants}
    assert {"fan", "fan.first", "fan.many"} <= set(tenants)
    shown = tenants["fan"]
    assert (shown.qos_ms, shown.queue_max, shown.answered, shown.models) == (500, 2, 1, ("fan",))


def test_clients_that_hang_up_leave_nothing_behind(daemon: Daemon) -> None:
    running, client = daemon
    host = running.url.removeprefix("http://")
    body = b'{"inputs":[{"name":"n","shape":[2],"datatype":"INT32","data":[40,0]}]}'
    for _ in range(6):  # more than may be inside at once
        connection = http.client.HTTPConnection(host, timeout=30)
        connection.request("POST", "/v2/models/fan/infer", body)
        time.sleep(0.02)
        connection.close()
    for _ in range(50):
        with contextlib.suppress(InferenceServerException):
            assert len(fan(client, 3)) == 3
            break
        time.sleep(0.1)
    assert fan(client, 40) == [k + SEGMENTS for k in range(40)]


def test_texts_come_through_the_command_line(
    daemon: Daemon, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    running, _ = daemon
    np.savez(tmp_path / "n.npz", n=np.array([2, 0], np.int32))
    given = ("--input", str(tmp_path / "n.npz"), "--output", str(tmp_path / "o.npz"))
    assert run(["infer", "fan", *given, "--url", running.url]) == 0
    assert "S" in capsys.readouterr().out
    with np.load(tmp_path / "o.npz") as outputs:
        assert outputs["text"].tolist() == [f"n° {k + SEGMENTS:g}".encode() for k in range(2)]
