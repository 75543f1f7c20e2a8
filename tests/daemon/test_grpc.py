"""Every call of GRPCInferenceService, by tritonclient's blocking and asyncio clients."""

from __future__ import annotations

import asyncio
import queue
import time
from collections.abc import Iterator

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc
from tritonclient.utils import InferenceServerException

from tenantdl.daemon.protocol.refusals import STATUS
from tenantdl.load.protocol import DATATYPES
from tenantdl.sched.messages import Reason
from tests.daemon.fake_service import FakeServer


@pytest.fixture(scope="module")
def running() -> Iterator[FakeServer]:
    with FakeServer().running() as server:
        yield server


@pytest.fixture
def server(running: FakeServer) -> Iterator[FakeServer]:
    yield running
    engine = running.engine
    engine.ready, engine.reason, engine.error, engine.hold = True, None, None, False
    running.repository.done.clear()


@pytest.fixture
def client(server: FakeServer) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(server.grpc) as client:
        yield client


def tensor(name: str, array: np.ndarray, kind: str) -> triton.InferInput:
    given = triton.InferInput(name, list(array.shape), kind)
    given.set_data_from_numpy(array)
    return given


def add_inputs(batch: int = 1) -> list[triton.InferInput]:
    x = np.arange(3 * batch, dtype=np.float32).reshape(batch, 3)
    return [tensor("x", x, "FP32"), tensor("k", np.array([5]), "INT64")]


def test_health_and_metadata(server: FakeServer, client: triton.InferenceServerClient) -> None:
    assert client.is_server_live() and client.is_server_ready()
    assert client.is_model_ready("add") and client.is_model_ready("add", "1")
    assert not client.is_model_ready("none") and not client.is_model_ready("add", "2")
    assert client.get_server_metadata().name == "tenantdl"
    metadata = client.get_model_metadata("add")
    assert [(t.name, t.datatype, list(t.shape)) for t in metadata.inputs] == [
        ("x", "FP32", [-1, 3]),
        ("k", "INT64", [1]),
    ]
    config = client.get_model_config("add").config
    assert (config.name, config.max_batch_size, config.backend) == ("add", 0, "tenantdl")
    assert [list(tensor.dims) for tensor in config.output] == [[-1, 3], [1]]
    server.engine.ready = False
    assert client.is_server_live() and not client.is_server_ready()


@pytest.mark.parametrize("batch", [1, 4])
def test_infer(server: FakeServer, client: triton.InferenceServerClient, batch: int) -> None:
    wanted = [triton.InferRequestedOutput(n) for n in ("n", "y")]
    result = client.infer(
        "add",
        add_inputs(batch),
        outputs=wanted,
        request_id="r7",
        model_version="1",
        priority=3,
        timeout=1500,
        parameters={"tenant": "bob"},
    )
    expected = np.arange(3 * batch, dtype=np.float32).reshape(batch, 3) + 5
    assert np.array_equal(result.as_numpy("y"), expected)
    assert result.as_numpy("n").tolist() == [6]
    assert result.get_response().id == "r7"
    call = server.engine.calls[-1]
    assert (call.tenant, call.timeout, call.priority) == ("bob", 1_500_000, 3)


@pytest.mark.parametrize("kind", sorted(set(DATATYPES) - {"BYTES"}))
def test_every_datatype_raw(client: triton.InferenceServerClient, kind: str) -> None:
    array = np.array([[0, 1], [1, 0]]).astype(DATATYPES[kind])
    result = client.infer(f"echo_{DATATYPES[kind]}", [tensor("x", array, kind)])
    got = result.as_numpy("y")
    assert np.array_equal(got.astype(np.float64), array.astype(np.float64))


def test_strings_and_empty_tensors(client: triton.InferenceServerClient) -> None:
    words = np.array([[b"", b"a"], [b"\xff\x00", b"long" * 99]], object)
    result = client.infer("echo_object", [tensor("x", words, "BYTES")])
    assert np.array_equal(result.as_numpy("y"), words)
    empty = np.empty((0, 2), np.float32)
    assert client.infer("echo_empty", [tensor("x", empty, "FP32")]).as_numpy("y").shape == (0, 2)


@pytest.mark.parametrize(
    ("kind", "field"),
    [
        *(("BOOL", "bool_contents"), ("INT8", "int_contents"), ("INT64", "int64_contents")),
        *(("UINT16", "uint_contents"), ("UINT64", "uint64_contents"), ("FP32", "fp32_contents")),
        ("FP64", "fp64_contents"),
    ],
)
def test_listed_contents(server: FakeServer, kind: str, field: str) -> None:
    request = pb.ModelInferRequest(model_name=f"echo_{DATATYPES[kind]}")
    given = request.inputs.add(name="x", datatype=kind, shape=[2, 2])
    getattr(given.contents, field).extend([0, 1, 1, 0])
    with grpc.insecure_channel(server.grpc) as channel:
        answer = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(request)
    got = np.frombuffer(answer.raw_output_contents[0], DATATYPES[kind])
    assert got.tolist() == [0, 1, 1, 0]


def test_classification(client: triton.InferenceServerClient) -> None:
    wanted = [triton.InferRequestedOutput("y", class_count=2)]
    result = client.infer("add", add_inputs(), outputs=wanted).as_numpy("y")
    assert result.tolist() == [b"7.000000:2", b"6.000000:1"]


def test_repository(server: FakeServer, client: triton.InferenceServerClient) -> None:
    index = client.get_model_repository_index().models
    assert [(m.name, m.version, m.state) for m in index] == [
        ("add", "1", "READY"),
        ("new", "2", "UNAVAILABLE"),
    ]
    client.load_model("new")
    client.load_model("new", config='{"version_policy": {"specific": {"versions": [2]}}}')
    client.unload_model("new")
    assert [done[:2] for done in server.repository.done] == [
        ("load", "new"),
        ("load", "new"),
        ("unload", "new"),
    ]
    with pytest.raises(InferenceServerException, match="digest differs"):
        client.load_model("broken")


def test_statistics(client: triton.InferenceServerClient) -> None:
    client.infer("add", add_inputs())
    (after,) = client.get_inference_statistics("add", "1").model_stats
    assert after.inference_count >= 1
    assert after.inference_stats.success.ns == after.inference_count * 10**6
    assert len(client.get_inference_statistics().model_stats) > 10


def test_cuda_memory_answers_as_where_there_is_no_gpu(
    client: triton.InferenceServerClient,
) -> None:
    client.unregister_cuda_shared_memory()
    assert len(client.get_cuda_shared_memory_status().regions) == 0
    with pytest.raises(InferenceServerException, match="GPUs not supported"):
        client.register_cuda_shared_memory("c", b"YWJj", 0, 64)


def test_settings(client: triton.InferenceServerClient) -> None:
    assert list(client.get_trace_settings().settings["trace_level"].value) == ["OFF"]
    client.update_trace_settings("add", {"trace_level": "OFF"})
    with pytest.raises(InferenceServerException, match="cannot be changed"):
        client.update_trace_settings(settings={"trace_level": ["TIMESTAMPS"]})
    assert client.update_log_settings({"log_verbose_level": 1}) is not None
    assert client.get_log_settings().settings["log_verbose_level"].uint32_param == 1


@pytest.mark.parametrize("reason", [reason for reason in STATUS if reason is not Reason.CANCELLED])
def test_refusals(server: FakeServer, client: triton.InferenceServerClient, reason: Reason) -> None:
    server.engine.reason = reason
    with pytest.raises(InferenceServerException, match=reason.value) as error:
        client.infer("add", add_inputs())
    code = {429: "RESOURCE_EXHAUSTED", 503: "UNAVAILABLE", 500: "INTERNAL"}[STATUS[reason]]
    assert str(error.value.status()) == f"StatusCode.{code}"


def test_a_bug_is_an_internal_error(
    server: FakeServer, client: triton.InferenceServerClient
) -> None:
    server.engine.error = KeyError("secret")
    with pytest.raises(InferenceServerException, match="internal error: KeyError") as error:
        client.infer("add", add_inputs())
    assert "secret" not in str(error.value)


def test_a_stream_answers_every_request(
    server: FakeServer, client: triton.InferenceServerClient
) -> None:
    answers: queue.Queue[tuple[triton.InferResult | None, Exception | None]] = queue.Queue()
    client.start_stream(lambda result, error: answers.put((result, error)))
    for number in range(20):
        client.async_stream_infer("add", add_inputs(), request_id=str(number))
    client.async_stream_infer("none", add_inputs())
    got = [answers.get(timeout=30) for _ in range(21)]
    client.stop_stream()
    assert {result.get_response().id for result, _ in got if result} == set(map(str, range(20)))
    (error,) = [error for _, error in got if error]
    assert "unknown model" in str(error)


def test_cancelling_ends_the_request(
    server: FakeServer, client: triton.InferenceServerClient
) -> None:
    server.engine.hold = True
    server.engine.cancelled.clear()
    server.engine.calls.clear()
    done: queue.Queue[object] = queue.Queue()
    context = client.async_infer("add", add_inputs(), lambda result, error: done.put(error))
    end = time.monotonic() + 30
    while not server.engine.calls and time.monotonic() < end:
        time.sleep(0.01)
    context.cancel()
    assert "cancelled" in str(done.get(timeout=30)).lower()
    assert server.engine.cancelled.wait(30)


def test_asyncio_client(server: FakeServer) -> None:
    async def ask() -> list[int]:
        async with triton_aio.InferenceServerClient(server.grpc) as client:
            assert await client.is_server_ready()
            results = await asyncio.gather(*(client.infer("add", add_inputs()) for _ in range(8)))
            return [int(result.as_numpy("n")[0]) for result in results]

    assert asyncio.run(ask()) == [6] * 8


def test_health_service(server: FakeServer) -> None:
    with grpc.insecure_channel(server.grpc) as channel:
        check = health_pb2_grpc.HealthStub(channel).Check
        assert check(health_pb2.HealthCheckRequest()).status == 1
        server.engine.ready = False
        assert check(health_pb2.HealthCheckRequest()).status == 2
        with pytest.raises(grpc.RpcError):
            check(health_pb2.HealthCheckRequest(service="other"))
