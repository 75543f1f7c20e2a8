"""What real clients do beside plain inference: shared memory, compression, asyncio, TLS."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
import tritonclient.http.aio as triton_http_aio
from starlette.applications import Starlette
from tritonclient.utils import InferenceServerException, shared_memory

from tenantdl.daemon import running_daemon
from tenantdl.daemon.front import _uvicorn, check_binding
from tenantdl.daemon.protocol.inference import Gate
from tenantdl.errors import UserError
from tenantdl.load.sections import ServerSection
from tenantdl.load.workload import parse_workload
from tenantdl.machine import usable_cores
from tests.daemon.fake_service import FakeServer
from tests.exec.fake_lane_backend import fake_bundle

FAKES = Path(__file__).parents[1] / "exec"
IMAGE = (1, 3, 224, 224)


@pytest.fixture(scope="module")
def server() -> Iterator[FakeServer]:
    with FakeServer().running() as server:
        yield server


@pytest.fixture(params=["http", "grpc"])
def spoken(request: pytest.FixtureRequest, server: FakeServer) -> Iterator[tuple[ModuleType, Any]]:
    """A module of tritonclient and a client of it."""
    module = triton_http if request.param == "http" else triton_grpc
    address = server.http if request.param == "http" else server.grpc
    with contextlib.closing(module.InferenceServerClient(address)) as client:
        yield module, client
        client.unregister_system_shared_memory()


@pytest.fixture
def memory() -> Iterator[Any]:
    """A region of two images."""
    nbytes = int(np.prod(IMAGE)) * 4
    name = f"/tenantdl-test-{os.getpid()}"
    region = shared_memory.create_shared_memory_region("r", name, 2 * nbytes)
    yield region, name, nbytes
    shared_memory.destroy_shared_memory_region(region)


def test_tensors_in_shared_memory(spoken: tuple[ModuleType, Any], memory: Any) -> None:
    module, client = spoken
    region, key, nbytes = memory
    image = np.random.default_rng(1).random(IMAGE, np.float32)
    shared_memory.set_shared_memory_region(region, [image])
    client.unregister_cuda_shared_memory()  # as perf_analyzer does
    client.register_system_shared_memory("r", key, 2 * nbytes)
    with pytest.raises(InferenceServerException, match="already in manager"):
        client.register_system_shared_memory("r", key, 2 * nbytes)
    x = module.InferInput("x", list(IMAGE), "FP32")
    x.set_shared_memory("r", nbytes)
    y = module.InferRequestedOutput("y")
    y.set_shared_memory("r", nbytes, offset=nbytes)
    result = client.infer("echo_large", [x], outputs=[y])
    got = shared_memory.get_contents_as_numpy(region, np.float32, list(IMAGE), offset=nbytes)
    assert np.array_equal(got, image)
    assert "parameters" not in str(result.get_output("y"))
    beyond = module.InferRequestedOutput("y")
    beyond.set_shared_memory("r", nbytes, offset=nbytes + 4)
    with pytest.raises(InferenceServerException, match="Invalid offset"):
        client.infer("echo_large", [x], outputs=[beyond])
    small = module.InferRequestedOutput("y")
    small.set_shared_memory("r", nbytes - 4)
    with pytest.raises(InferenceServerException, match="should be at least"):
        client.infer("echo_large", [x], outputs=[small])
    client.unregister_system_shared_memory("r")
    with pytest.raises(InferenceServerException, match="Unable to find shared memory region"):
        client.infer("echo_large", [x], outputs=[y])


def test_regions_are_listed(spoken: tuple[ModuleType, Any], memory: Any) -> None:
    _, client = spoken
    _, key, nbytes = memory
    client.register_system_shared_memory("part", key, nbytes, offset=nbytes)
    status = client.get_system_shared_memory_status("part")
    listed = status if isinstance(status, list) else list(status.regions.values())
    (only,) = listed
    found = only if isinstance(only, dict) else {"key": only.key, "offset": only.offset}
    assert (found["key"], found["offset"]) == (key, nbytes)
    with pytest.raises(InferenceServerException, match="Unable to find"):
        client.get_system_shared_memory_status("none")


@pytest.mark.parametrize(
    ("key", "size", "offset"),
    [("/none-such", 8, 0), ("../etc/passwd", 8, 0), ("/..", 8, 0), ("", 8, 0), (None, 10**12, 0)],
)
def test_what_cannot_be_mapped_is_refused(
    spoken: tuple[ModuleType, Any], memory: Any, key: str | None, size: int, offset: int
) -> None:
    _, client = spoken
    with pytest.raises(InferenceServerException, match=r"Unable to open|failed to register"):
        client.register_system_shared_memory("bad", memory[1] if key is None else key, size, offset)


def test_a_region_that_shrinks_is_refused_not_deadly(
    spoken: tuple[ModuleType, Any], memory: Any
) -> None:
    module, client = spoken
    _, key, nbytes = memory
    client.register_system_shared_memory("r", key, 2 * nbytes)
    os.truncate(f"/dev/shm{key}", 4096)
    x = module.InferInput("x", list(IMAGE), "FP32")
    x.set_shared_memory("r", nbytes)
    with pytest.raises(InferenceServerException, match="has been shortened"):
        client.infer("echo_large", [x])


def image_input(module: ModuleType) -> tuple[np.ndarray, Any]:
    image = np.zeros(IMAGE, np.float32)
    image[0, 0, 0, :7] = range(7)
    x = module.InferInput("x", list(IMAGE), "FP32")
    x.set_data_from_numpy(image)
    return image, x


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_compression(server: FakeServer, coding: str) -> None:
    with contextlib.closing(triton_http.InferenceServerClient(server.http)) as http:
        image, x = image_input(triton_http)
        both = {"request_compression_algorithm": coding, "response_compression_algorithm": coding}
        assert np.array_equal(http.infer("echo_large", [x], **both).as_numpy("y"), image)
    with triton_grpc.InferenceServerClient(server.grpc) as grpc:
        image, x = image_input(triton_grpc)
        got = grpc.infer("echo_large", [x], compression_algorithm=coding)
        assert np.array_equal(got.as_numpy("y"), image)


def test_asyncio_over_http(server: FakeServer) -> None:
    async def ask() -> list[np.ndarray]:
        async with triton_http_aio.InferenceServerClient(server.http) as client:
            assert await client.is_server_ready()
            _, x = image_input(triton_http)
            results = await asyncio.gather(*(client.infer("echo_large", [x]) for _ in range(6)))
            return [result.as_numpy("y") for result in results]

    image, _ = image_input(triton_http)
    assert all(np.array_equal(got, image) for got in asyncio.run(ask()))


def test_classes_repository_and_settings_over_http(server: FakeServer) -> None:
    with contextlib.closing(triton_http.InferenceServerClient(server.http)) as http:
        x = triton_http.InferInput("x", [1, 3], "FP32")
        x.set_data_from_numpy(np.array([[1, 3, 2]], np.float32))
        k = triton_http.InferInput("k", [1], "INT64")
        k.set_data_from_numpy(np.array([0]))
        for binary in (True, False):
            wanted = [triton_http.InferRequestedOutput("y", binary_data=binary, class_count=2)]
            got = http.infer("add", [x, k], outputs=wanted).as_numpy("y")
            texts = [t.decode() if isinstance(t, bytes) else t for t in got]
            assert texts == ["3.000000:1", "2.000000:2"]
        states = {m["name"]: m["state"] for m in http.get_model_repository_index()}
        assert states == {"add": "READY", "new": "UNAVAILABLE"}
        http.load_model("new", config=json.dumps({"version_policy": {"all": {}}}))
        http.unload_model("new")
        with pytest.raises(InferenceServerException, match="digest differs"):
            http.load_model("broken")
        assert http.get_trace_settings("add")["trace_level"] == ["OFF"]
        assert http.update_log_settings({"log_verbose_level": 2})["log_verbose_level"] == 2
        assert http.get_log_settings()["log_verbose_level"] == 2
        assert http.get_cuda_shared_memory_status() == []
        with pytest.raises(InferenceServerException, match="GPUs not supported"):
            http.register_cuda_shared_memory("c", b"YWJj", 0, 64)


def test_strings_and_empty_tensors_over_http(server: FakeServer) -> None:
    with contextlib.closing(triton_http.InferenceServerClient(server.http)) as http:
        words = np.array([[b"", b"a"], [b"b c", b"long" * 99]], object)
        for binary in (True, False):
            x = triton_http.InferInput("x", [2, 2], "BYTES")
            x.set_data_from_numpy(words, binary_data=binary)
            wanted = [triton_http.InferRequestedOutput("y", binary_data=binary)]
            got = http.infer("echo_object", [x], outputs=wanted).as_numpy("y")
            assert [[t if isinstance(t, bytes) else t.encode() for t in row] for row in got] == (
                words.tolist()
            )
        x = triton_http.InferInput("x", [0, 2], "FP32")
        x.set_data_from_numpy(np.empty((0, 2), np.float32))
        assert http.infer("echo_empty", [x]).as_numpy("y").shape == (0, 2)


# --- TLS, and where to listen


def test_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", f"{FAKES}:{FAKES.parents[1]}")
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    made = f"-keyout {key} -out {certificate} -subj /CN=x -addext subjectAltName=IP:127.0.0.1"
    command = f"openssl req -x509 -newkey rsa:2048 -nodes -days 1 {made}"
    subprocess.run(command.split(), check=True, capture_output=True)
    bundle = fake_bundle(tmp_path, "m", 4, 0)
    text = f"""
        [machine]
        cores = [{usable_cores()[0]}]
        [server]
        grpc_port = 0
        tls_cert = "{certificate}"
        tls_key = "{key}"
        [[tenant]]
        name = "t"
        bundle = "{bundle}"
        qos_ms = 1000
        """
    with running_daemon(parse_workload(text), backend="fake_lane_backend") as running:
        assert running.url.startswith("https://")
        address = running.url.removeprefix("https://")
        options = {"ca_certs": str(certificate)}
        http = triton_http.InferenceServerClient(address, ssl=True, ssl_options=options)
        grpc = triton_grpc.InferenceServerClient(
            running.grpc, ssl=True, root_certificates=str(certificate)
        )
        for module, client in ((triton_http, http), (triton_grpc, grpc)):
            x = module.InferInput("x", [1, 2], "FP32")
            x.set_data_from_numpy(np.zeros((1, 2), np.float32))
            assert client.infer("m", [x]).as_numpy("y")[0, 0] == 4
            client.close()
        with contextlib.closing(triton_http.InferenceServerClient(address)) as plain:
            assert not _lives(plain)


def _lives(client: Any) -> bool:
    """Whether it answers at all: it does not speak without TLS."""
    try:
        return bool(client.is_server_live())
    except Exception:
        return False


def test_only_this_machine_unless_told_otherwise() -> None:
    for host in ("127.0.0.1", "127.9.9.9", "::1", "localhost"):
        check_binding(ServerSection(host=host))
    for host in ("0.0.0.0", "::", "10.0.0.1", "example.com"):
        with pytest.raises(UserError, match="can be reached from other machines"):
            check_binding(ServerSection(host=host))
        check_binding(ServerSection(host=host, insecure=True))
        check_binding(ServerSection(host=host, tls_cert="c", tls_key="k"))


def test_rare_clients_find_their_connections_open() -> None:
    server = _uvicorn(ServerSection(), cast(Gate, None), Starlette())
    assert server.config.timeout_keep_alive >= 60
