"""The protocol, spoken by tritonclient to a server with a fake engine behind it."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Iterator

import msgspec
import numpy as np
import pytest
import tritonclient.http as triton
from prometheus_client.parser import text_string_to_metric_families

from tenantdl.daemon.protocol.refusals import STATUS
from tenantdl.load.protocol import DATATYPES, HEADER_LENGTH, encode_request
from tenantdl.load.status import Status
from tenantdl.sched.messages import Reason
from tests.daemon.fake_service import BODY_BYTES_MAX, FakeEngine, FakeServer


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[str, FakeEngine]]:
    with FakeServer().running() as running:
        yield running.http, running.engine


@pytest.fixture
def engine(server: tuple[str, FakeEngine]) -> Iterator[FakeEngine]:
    yield server[1]
    server[1].ready, server[1].reason, server[1].hold = True, None, False


@pytest.fixture
def client(server: tuple[str, FakeEngine]) -> Iterator[triton.InferenceServerClient]:
    client = triton.InferenceServerClient(server[0])
    yield client
    client.close()


def raw(
    server: tuple[str, FakeEngine],
    method: str,
    path: str,
    body: bytes | None = None,
    headers: dict[str, str] | None = None,
) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(server[0], timeout=30)
    connection.request(method, path, body, headers or {})
    response = connection.getresponse()
    answer = response.status, response.read()
    connection.close()
    return answer


def tensor(name: str, array: np.ndarray, binary: bool) -> triton.InferInput:
    kinds = {value: key for key, value in DATATYPES.items()}
    given = triton.InferInput(name, list(array.shape), kinds[array.dtype.name])
    given.set_data_from_numpy(array, binary_data=binary)
    return given


def add_inputs(batch: int = 1, binary: bool = True) -> list[triton.InferInput]:
    x = np.arange(3 * batch, dtype=np.float32).reshape(batch, 3)
    return [tensor("x", x, binary), tensor("k", np.array([5]), binary)]


# --- what tritonclient asks


def test_health_and_metadata(client: triton.InferenceServerClient, engine: FakeEngine) -> None:
    assert client.is_server_live() and client.is_server_ready()
    assert client.is_model_ready("add") and client.is_model_ready("add", "1")
    assert not client.is_model_ready("none") and not client.is_model_ready("add", "2")
    metadata = client.get_server_metadata()
    assert metadata["name"] == "tenantdl"
    assert {"binary_tensor_data", "statistics", "model_configuration"} <= set(
        metadata["extensions"]
    )
    engine.ready = False
    assert client.is_server_live() and not client.is_server_ready()
    assert not client.is_model_ready("add")


def test_model_metadata_and_config(client: triton.InferenceServerClient) -> None:
    assert client.get_model_metadata("add") == {
        "name": "add",
        "versions": ["1"],
        "platform": "tenantdl_bundle",
        "inputs": [
            {"name": "x", "datatype": "FP32", "shape": [-1, 3]},
            {"name": "k", "datatype": "INT64", "shape": [1]},
        ],
        "outputs": [
            {"name": "y", "datatype": "FP32", "shape": [-1, 3]},
            {"name": "n", "datatype": "INT64", "shape": [1]},
        ],
    }
    config = client.get_model_config("add", "1")
    assert config["max_batch_size"] == 0
    assert config["input"][0] == {"name": "x", "data_type": "TYPE_FP32", "dims": [-1, 3]}


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False])
@pytest.mark.parametrize("batch", [1, 4])
def test_infer(
    client: triton.InferenceServerClient,
    engine: FakeEngine,
    binary_in: bool,
    binary_out: bool,
    batch: int,
) -> None:
    wanted = [triton.InferRequestedOutput(n, binary_data=binary_out) for n in ("n", "y")]
    result = client.infer(
        "add", add_inputs(batch, binary_in), outputs=wanted, request_id="r7", model_version="1"
    )
    expected = np.arange(3 * batch, dtype=np.float32).reshape(batch, 3) + 5
    assert np.array_equal(result.as_numpy("y"), expected)
    assert result.as_numpy("n").tolist() == [6]
    assert result.get_response()["id"] == "r7"
    assert engine.calls[-1].plan == [1, 4].index(batch)


@pytest.mark.parametrize(
    ("kind", "binary"),
    [
        (kind, binary)
        for kind in sorted(set(DATATYPES) - {"BYTES", "BF16"})
        for binary in (True, False)
        if binary or kind != "FP16"  # which tritonclient sends as bytes only
    ],
)
def test_every_datatype(client: triton.InferenceServerClient, kind: str, binary: bool) -> None:
    dtype = DATATYPES[kind]
    array = np.array([[0, 1], [1, 0]]).astype(dtype)
    result = client.infer(f"echo_{dtype}", [tensor("x", array, binary)])
    got = result.as_numpy("y")
    assert got.dtype == array.dtype and np.array_equal(got, array)


def test_outputs_are_chosen_and_default_to_all(client: triton.InferenceServerClient) -> None:
    only = client.infer("add", add_inputs(), outputs=[triton.InferRequestedOutput("n")])
    assert only.as_numpy("y") is None and only.as_numpy("n") is not None
    both = client.infer("add", add_inputs())
    assert both.as_numpy("y") is not None and both.as_numpy("n") is not None


def test_parameters_reach_the_engine(
    client: triton.InferenceServerClient, engine: FakeEngine
) -> None:
    client.infer("add", add_inputs())
    assert (engine.calls[-1].tenant, engine.calls[-1].timeout, engine.calls[-1].priority) == (
        "alice",
        None,
        None,
    )
    client.infer("add", add_inputs(), priority=2, timeout=1500, parameters={"tenant": "bob"})
    assert (engine.calls[-1].tenant, engine.calls[-1].timeout, engine.calls[-1].priority) == (
        "bob",
        1_500_000,
        2,
    )


def test_the_requests_origin_reaches_the_engine(
    server: tuple[str, FakeEngine], client: triton.InferenceServerClient, engine: FakeEngine
) -> None:
    client.infer("add", add_inputs(), request_id="r7", headers={"traceparent": "00-1-2-01"})
    assert engine.calls[-1].origin == ("r7", "00-1-2-01")
    body, headers = json.dumps(ADD).encode(), {"x-request-id": "x" * 999}
    raw(server, "POST", "/v2/models/add/infer", body, headers)
    assert engine.calls[-1].origin == ("x" * 128, "")


def test_statistics(client: triton.InferenceServerClient) -> None:
    before = client.get_inference_statistics("add")["model_stats"][0]
    client.infer("add", add_inputs())
    (after,) = client.get_inference_statistics("add", "1")["model_stats"]
    assert after["inference_count"] == before["inference_count"] + 1
    parts = after["inference_stats"]
    assert parts["success"]["ns"] == after["inference_count"] * 10**6
    assert parts["compute_infer"]["count"] == after["inference_count"]
    assert {"queue", "compute_input", "compute_output", "fail", "cache_hit"} <= set(parts)
    assert len(client.get_inference_statistics()["model_stats"]) == 3 + len(DATATYPES)


# --- what goes wrong


@pytest.mark.parametrize(("reason", "status"), sorted(STATUS.items(), key=lambda i: i[0].value))
def test_refusals(
    server: tuple[str, FakeEngine], engine: FakeEngine, reason: Reason, status: int
) -> None:
    engine.reason = reason
    body = json.dumps(ADD).encode()
    got, answer = raw(server, "POST", "/v2/models/add/infer", body)
    assert got == status
    assert json.loads(answer)["error"].startswith(reason.value)


X = {"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]}
K = {"name": "k", "shape": [1], "datatype": "INT64", "data": [1]}
ADD = {"inputs": [X, K]}


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ({"inputs": [X]}, "input 'k' is missing"),
        ({"inputs": [X, K, {**K, "name": "z"}]}, "unknown input 'z'"),
        ({"inputs": [{**X, "datatype": "FP64"}, K]}, "input 'x' has datatype FP64, needs FP32"),
        ({"inputs": [{**X, "shape": [3, 1]}, K]}, "no plan for input shapes {'x': [3, 1]"),
        ({"inputs": [{**X, "shape": [2]}, K]}, "input 'x': cannot reshape"),
        ({**ADD, "outputs": [{"name": "q"}]}, "unexpected inference output 'q'"),
        ({**ADD, "parameters": {"tenant": "eve"}}, "tenant 'eve' is not yours"),
        ({**ADD, "parameters": {"tenant": {}}}, "tenant {} is not yours"),
        ({**ADD, "parameters": {"timeout": "soon"}}, "parameter 'timeout' must be a whole number"),
        ({**ADD, "parameters": {"priority": -1}}, "parameter 'priority' must be a whole number"),
        ({"inputs": 3}, "request is not valid"),
        ([], "request is not valid"),
    ],
)
def test_bad_requests_are_400_and_say_what(
    server: tuple[str, FakeEngine], message: object, said: str
) -> None:
    status, answer = raw(server, "POST", "/v2/models/add/infer", json.dumps(message).encode())
    assert status == 400
    assert said in json.loads(answer)["error"]


def test_bad_bodies_are_400(server: tuple[str, FakeEngine]) -> None:
    for body, length in ((b"", None), (b"{", None), (b"{}", "99"), (b"{}", "-1"), (b"{}", "²")):
        headers = {} if length is None else {"Inference-Header-Content-Length": length}
        encoded = {key: value.encode() for key, value in headers.items()}
        status, answer = raw(server, "POST", "/v2/models/add/infer", body, encoded)  # type: ignore
        assert status == 400, (body, length)
        assert json.loads(answer)["error"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v2/models/none", 404),
        ("POST", "/v2/models/none/infer", 404),
        ("POST", "/v2/models/add/versions/3/infer", 404),
        ("GET", "/v2/models/none/stats", 404),
        ("GET", "/nowhere", 404),
        ("GET", "/v2/models/add/infer", 405),
    ],
)
def test_errors_are_json_everywhere(
    server: tuple[str, FakeEngine], method: str, path: str, status: int
) -> None:
    got, answer = raw(server, method, path)
    assert got == status
    assert set(json.loads(answer)) == {"error"}


def test_a_too_long_body_is_refused_before_it_is_read(server: tuple[str, FakeEngine]) -> None:
    connection = http.client.HTTPConnection(server[0], timeout=30)
    connection.putrequest("POST", "/v2/models/add/infer")
    connection.putheader("Content-Length", str(10**12))
    connection.endheaders()
    # Not one byte of the body was sent.
    response = connection.getresponse()
    assert response.status == 413
    assert "body of 1000000000000 bytes" in json.loads(response.read())["error"]
    connection.close()


def test_a_body_without_a_length_is_cut_off(server: tuple[str, FakeEngine]) -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(4096):
            yield b" " * 65536

    connection = http.client.HTTPConnection(server[0], timeout=30)
    try:
        connection.request("POST", "/v2/models/add/infer", endless(), encode_chunked=True)
        assert connection.getresponse().status == 413
    except (BrokenPipeError, ConnectionResetError):
        pass  # the server hung up before all was sent, as it may
    connection.close()
    assert raw(server, "GET", "/v2/health/ready")[0] == 200


def test_bytes_being_read_are_bounded_together(server: tuple[str, FakeEngine]) -> None:
    """Clients that announce long bodies and never send them cannot fill the memory."""
    idle = []
    each = 256 * 1024
    for _ in range(BODY_BYTES_MAX // each):
        connection = http.client.HTTPConnection(server[0], timeout=30)
        connection.putrequest("POST", "/v2/models/add/infer")
        connection.putheader("Content-Length", str(each))
        connection.endheaders()
        idle.append(connection)
    body = json.dumps(ADD).encode()
    statuses = set()
    end = time.monotonic() + 30
    while 429 not in statuses and time.monotonic() < end:
        statuses.add(raw(server, "POST", "/v2/models/add/infer", body)[0])
    assert 429 in statuses
    for connection in idle:
        connection.close()
    while raw(server, "POST", "/v2/models/add/infer", body)[0] != 200:
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_large_body_that_is_refused_leaves_the_connection(
    server: tuple[str, FakeEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the head was known before, and with as much behind it as was announced."""
    image = np.zeros((1, 3, 224, 224), np.float32)
    body, length = encode_request({"x": image}, {})
    connection = http.client.HTTPConnection(server[0], timeout=30)
    said = []
    for opens in (False, False, True, False, True):
        if opens:
            monkeypatch.undo()
        else:
            monkeypatch.setattr(server[1].door, "enter", lambda tenant, model: False)
        headers = {HEADER_LENGTH: str(length)}
        connection.request("POST", "/v2/models/echo_large/infer", body, headers)
        response = connection.getresponse()
        said.append((response.status, len(response.read()) > image.nbytes))
        assert response.getheader("connection") != "close"
    connection.close()
    assert said == [(503, False), (503, False), (200, True), (503, False), (200, True)]


def test_a_body_counts_while_it_is_read(
    server: tuple[str, FakeEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until it has come, answered or not, or will not come."""
    door, left = server[1].door, threading.Event()
    monkeypatch.setattr(server[1], "hold", True)
    leave = door.leave
    monkeypatch.setattr(door, "leave", lambda *who: (leave(*who), left.set()))
    body, length = encode_request({"x": np.zeros((1, 3, 224, 224), np.float32)}, {})
    for whole in (True, False):
        left.clear()
        connection = http.client.HTTPConnection(server[0], timeout=30)
        connection.putrequest("POST", "/v2/models/echo_large/infer")
        connection.putheader("Content-Length", str(len(body)))
        connection.putheader(HEADER_LENGTH, str(length))
        connection.endheaders()
        connection.send(body[:-1])
        assert not left.wait(0.1)
        if whole:
            connection.send(body[-1:])
            assert left.wait(30)
        connection.close()
        assert left.wait(30)


def test_who_asks_first_whether_to_send_a_body_is_told(
    server: tuple[str, FakeEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server[1].door, "enter", lambda tenant, model: False)
    connection = http.client.HTTPConnection(server[0], timeout=30)
    connection.putrequest("POST", "/v2/models/echo_large/infer")
    connection.putheader("Content-Length", str(602_112))
    connection.putheader("Expect", "100-continue")
    connection.endheaders()
    assert connection.getresponse().status == 503
    connection.close()


def test_strange_codings_are_refused(server: tuple[str, FakeEngine]) -> None:
    for coding, status in (("br", 415), ("gzip", 400)):
        headers = {"Content-Encoding": coding}
        assert raw(server, "POST", "/v2/models/add/infer", b"x", headers)[0] == status


def test_a_client_that_hangs_up_cancels_its_request(
    server: tuple[str, FakeEngine], engine: FakeEngine
) -> None:
    engine.hold = True
    engine.cancelled.clear()
    before = len(engine.calls)
    connection = http.client.HTTPConnection(server[0], timeout=30)
    connection.request("POST", "/v2/models/add/infer", json.dumps(ADD).encode())
    end = time.monotonic() + 30
    while len(engine.calls) == before and time.monotonic() < end:
        time.sleep(0.01)
    connection.close()
    assert engine.cancelled.wait(30)


def test_metrics_are_what_prometheus_reads(
    server: tuple[str, FakeEngine], client: triton.InferenceServerClient
) -> None:
    client.infer("add", add_inputs(), parameters={"tenant": "bob"})
    status, text = raw(server, "GET", "/metrics")
    assert status == 200
    families = {f.name: f for f in text_string_to_metric_families(text.decode())}
    bob = {"model": "add", "version": "1", "tenant": "bob"}
    values = {
        name: {
            tuple(sorted(sample.labels.items())): sample.value
            for sample in family.samples
            if sample.labels.get("tenant") == "bob"
        }
        for name, family in families.items()
    }
    key = tuple(sorted(bob.items()))
    assert values["nv_inference_request_success"][key] >= 1
    assert values["nv_inference_compute_infer_duration_us"][key] >= 0
    assert values["nv_inference_compute_output_duration_us"][key] > 0
    assert list(values["tenantdl_queue_length"].values()) == [3]
    assert list(values["tenantdl_qos_target_seconds"].values()) == [1.0]
    assert families["nv_inference_count"].type == "counter"
    assert {"tenantdl_requests", "tenantdl_qos_met", "tenantdl_latency_seconds"} <= set(families)


def test_status_speaks_of_the_last_minute(
    server: tuple[str, FakeEngine], client: triton.InferenceServerClient
) -> None:
    client.infer("add", add_inputs(), parameters={"tenant": "bob"})
    status, text = raw(server, "GET", "/status?since=0")
    assert status == 200
    document = msgspec.json.decode(text, type=Status)
    (bob,) = (tenant for tenant in document.tenants if tenant.name == "bob")
    assert (bob.models, bob.qos_ms, bob.queue, bob.attainment) == (("add",), 1000, 3, 1.0)
    assert 0.9 <= (bob.p50_ms or 0) <= 1.1 and sum(n for _, n in bob.histogram) == bob.answered
    assert raw(server, "GET", "/status?since=-1")[0] == 400
    assert json.loads(raw(server, "GET", "/trace")[1])["traceEvents"]
