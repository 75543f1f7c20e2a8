"""`bench loadgen` on a daemon with fakes. LoadGen may be missing where it has no wheel."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest

from tenantdl.bench.serving import second_opinion
from tenantdl.errors import UserError
from tenantdl.load import loadgen
from tenantdl.load.issuer import Stream
from tenantdl.load.workload import Workload, parse_workload
from tenantdl.machine import usable_cores
from tests.exec.fake_lane_backend import fake_bundle

FAKES = Path(__file__).parents[1] / "exec"
TEXT = """
name = "one"
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
"""


@pytest.fixture
def workload(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workload:
    monkeypatch.setenv("PYTHONPATH", f"{FAKES}:{FAKES.parents[1]}")
    fake_bundle(tmp_path, "quick", 4, 100)
    return parse_workload(TEXT.format(bundles=tmp_path, core=usable_cores()[0]))


def test_loadgen_drives_the_daemon(workload: Workload) -> None:
    pytest.importorskip("mlperf_loadgen")
    (row,) = second_opinion.run(workload, ("daemon",), backend="fake_lane_backend")
    assert (row["target"], row["tenant"], row["refused"]) == ("daemon", "quick", 0)
    assert row["achieved"] > 1
    assert 0 < row["p50_ms"] <= row["p95_ms"] <= row["p99_ms"]


def test_targets_that_need_a_search_are_refused(workload: Workload) -> None:
    with pytest.raises(UserError, match="sim: LoadGen drives servers that need no search"):
        second_opinion.run(workload, ("sim",))


def test_loadgen_that_is_not_there_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "mlperf_loadgen", None)
    with pytest.raises(UserError, match="LoadGen is not installed: pip install"):
        loadgen.run_loadgen([])


def test_figures_are_read_from_the_detailed_log() -> None:
    text = 'noise\n:::MLLOG {"key": "result_validity", "value": "VALID", "time_ms": 1}\n'
    assert loadgen._figures(text) == {"result_validity": "VALID"}


def test_a_connection_that_was_closed_while_idle_is_opened_again(tmp_path: Path) -> None:
    body = tmp_path / "body"
    body.write_bytes(b"x")
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            for _ in range(2):  # each connection is good for one answer
                connection, _ = listener.accept()
                with connection:
                    connection.recv(4096)
                    connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")

        server = threading.Thread(target=serve, daemon=True)
        server.start()
        url = "http://{}:{}".format(*listener.getsockname())
        stream = Stream("a", "/infer", str(body), 0, [])
        client = loadgen._Client(loadgen.LoadgenTask(url, stream, rate=1, duration_s=1, seed=1))
        client.send()
        client.send()
        server.join(5)
    assert client.statuses == {200: 2}
    client.send()  # nobody listens any more: that counts
    assert client.statuses == {200: 2, 0: 1}
