"""Nonsense on the wire, over HTTP and gRPC: an answer with a reason or a closed connection, never a
crash, never a bare 500; and memory does not grow. The slow test sends 20 000 and more."""

from __future__ import annotations

import json
import random
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator

import grpc
import psutil
import pytest
from tritonclient.grpc import service_pb2 as pb

from tests.daemon.fake_service import FakeServer

X = {"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]}
K = {"name": "k", "shape": [1], "datatype": "INT64", "data": [1]}
SCALARS: list[object] = [
    *(None, True, -1, 0, 2**31, 2**63, 2**64, 10**400, 1.5, 1e308, "", "x", "\x00", "é" * 300),
    *(
        [],
        {},
        [[]],
        [None],
        {"x": None},
        [1e400],
        ["a", 1],
        [[1], [2, 3]],
        "FP32",
        "BYTES",
        "tenant",
    ),
]
PATHS = [
    "/v2/models/add/infer",
    "/v2/models/add/versions/1/infer",
    "/v2/models/echo_object/infer",
    "/v2/models/%2e%2e%2f/infer",
    "/v2/models/none/infer",
    "/v2/repository/index",
    "/v2/repository/models/new/load",
    "/v2/repository/models/../x/unload",
    "/v2/systemsharedmemory/region/r/register",
    "/v2/systemsharedmemory/region/r/unregister",
    "/v2/cudasharedmemory/region/r/register",
    "/v2/logging",
    "/v2/trace/setting",
    "/v2/models/add/trace/setting",
]
METHODS = [name for name in pb.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods_by_name]


@pytest.fixture(scope="module")
def server() -> Iterator[FakeServer]:
    with FakeServer(request_s_max=1).running() as server:
        yield server


def spoilt(value: object, rng: random.Random, depth: int = 0) -> object:
    """`value` with something in it replaced, dropped or doubled."""
    if depth > 4 or rng.random() < 0.25:
        return rng.choice(SCALARS)
    if isinstance(value, dict) and value:
        changed = dict(value)
        key = rng.choice(list(changed))
        match rng.randrange(4):
            case 0:
                del changed[key]
            case 1:
                changed[rng.choice(["parameters", "outputs", "id", "shape", "q" * 99])] = value
            case _:
                changed[key] = spoilt(changed[key], rng, depth + 1)
        return changed
    if isinstance(value, list) and value:
        changed_list = list(value)
        place = rng.randrange(len(changed_list))
        changed_list[place] = spoilt(changed_list[place], rng, depth + 1)
        return changed_list if rng.random() < 0.8 else changed_list * 2
    return rng.choice(SCALARS)


def message(rng: random.Random) -> bytes:
    """A body: spoilt JSON with or without bytes behind it, or no JSON at all."""
    base = {"inputs": [X, K], "outputs": [{"name": "y"}], "parameters": {"tenant": "bob"}}
    kind = rng.randrange(6)
    if kind == 0:
        return rng.randbytes(rng.randrange(200))
    text = json.dumps(spoilt(base, rng)).encode()
    if kind == 1:
        return text[: rng.randrange(len(text) + 1)]
    if kind == 2:
        return b"[" * 5000 + text
    return text + (rng.randbytes(rng.randrange(40)) if kind == 3 else b"")


def http_request(rng: random.Random) -> bytes:
    """A whole request, more or less HTTP."""
    body = message(rng)
    lines = [f"{rng.choice(['POST', 'POST', 'POST', 'GET', 'PUT', 'BREW'])} {rng.choice(PATHS)}"]
    lines[0] += rng.choice([" HTTP/1.1", " HTTP/1.1", " HTTP/1.1", " HTTP/1.0", " HTTP/9", ""])
    length = rng.choice([len(body)] * 6 + [len(body) + 7, -1, 10**12, "x"])
    lines.append(f"content-length: {length}")
    extra = {
        "inference-header-content-length": rng.choice(
            [len(body), 0, -1, 10**9, "a", len(body) // 2]
        ),
        "content-encoding": rng.choice(["gzip", "deflate", "br", "identity"]),
        "transfer-encoding": "chunked",
        "expect": "100-continue",
        "authorization": rng.choice(["Bearer x", "Basic", "é"]),
        "x" * 50: "y" * rng.randrange(9000),
    }
    for name in rng.sample(sorted(extra), rng.choice([0, 0, 0, 1, 2])):
        lines.append(f"{name}: {extra[name]}")
    head = "\r\n".join(["\r\n".join(lines), "host: x", "", ""]).encode()
    whole = head + body
    return whole if rng.random() < 0.9 else whole[: rng.randrange(len(whole))]


def exchange(address: tuple[str, int], data: bytes) -> tuple[int, bytes]:
    """Status and body of the answer; 0 where the connection was closed without one."""
    with socket.create_connection(address, timeout=20) as connection:
        try:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            answer = b""
            while len(answer) < 10**6 and (piece := connection.recv(65536)):
                answer += piece
                if _complete(answer):
                    break
        except (ConnectionResetError, BrokenPipeError):
            return 0, b""
    while answer.startswith(b"HTTP/1.1 100"):
        answer = answer.partition(b"\r\n\r\n")[2]
    if not answer.startswith(b"HTTP/1.1 "):
        return 0, answer
    return int(answer[9:12]), answer.partition(b"\r\n\r\n")[2]


def _complete(answer: bytes) -> bool:
    head, found, body = answer.partition(b"\r\n\r\n")
    if not found or head.startswith(b"HTTP/1.1 100"):
        return False
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return len(body) >= int(line.split(b":")[1])
    return False


def grpc_payload(rng: random.Random) -> bytes:
    """Bytes that are a request, or nearly."""
    request = pb.ModelInferRequest(
        model_name=rng.choice(["add", "none", "echo_object", ""]), id="i" * rng.randrange(300)
    )
    for name, kind, shape in (("x", "FP32", [1, 3]), ("k", "INT64", [1])):
        tensor = request.inputs.add(
            name=rng.choice([name, name, "q"]),
            datatype=rng.choice([kind, kind, "BF16", "BYTES", "INT9"]),
            shape=rng.choice([shape, shape, [-1], [2**62, 2**62], [0], []]),
        )
        if rng.random() < 0.3:
            tensor.parameters["shared_memory_region"].string_param = "r"
            tensor.parameters["shared_memory_byte_size"].int64_param = rng.choice([-1, 0, 2**60])
        if rng.random() < 0.3:
            tensor.contents.fp32_contents.extend([1.0] * rng.randrange(5))
        else:
            request.raw_input_contents.append(rng.randbytes(rng.choice([0, 8, 12, 13])))
    request.parameters["timeout"].int64_param = rng.choice([0, -1, 2**62])
    raw = bytearray(request.SerializeToString())
    for _ in range(rng.choice([0, 0, 1, 5])):
        if raw:
            raw[rng.randrange(len(raw))] = rng.randrange(256)
    return bytes(raw[: rng.randrange(len(raw) + 1)] if rng.random() < 0.2 else raw)


def fuzz_http(server: FakeServer, count: int, seed: int) -> Counter[int]:
    rng = random.Random(seed)
    host, port = server.http.split(":")
    seen: Counter[int] = Counter()
    for _ in range(count):
        data = http_request(rng)
        status, body = exchange((host, int(port)), data)
        seen[status] += 1
        assert status != 500, (data[:600], body)
        if status >= 400 and not body.startswith(b"Invalid HTTP"):
            assert status == 408 or json.loads(body)["error"], (data[:600], body)
    return seen


def fuzz_grpc(server: FakeServer, count: int, seed: int) -> Counter[str]:
    rng = random.Random(seed)
    seen: Counter[str] = Counter()
    with grpc.insecure_channel(server.grpc) as channel:
        for _ in range(count):
            name = rng.choice([*METHODS, *["ModelInfer"] * 20])
            path = f"/inference.GRPCInferenceService/{name}"
            payload = grpc_payload(rng)
            try:
                if name == "ModelStreamInfer":
                    list(channel.stream_stream(path)(iter([payload] * 3), timeout=20))
                else:
                    channel.unary_unary(path)(payload, timeout=20)
                seen["OK"] += 1
            except grpc.RpcError as error:
                seen[error.code().name] += 1
                assert error.details(), (name, payload)
                assert "internal error" not in error.details(), (name, payload, error.details())
                assert error.code() is not grpc.StatusCode.UNKNOWN, (name, payload, error.details())
    return seen


def is_well(server: FakeServer) -> None:
    body = json.dumps({"inputs": [X, K]}).encode()
    head = f"POST {PATHS[0]} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n".encode()
    host, port = server.http.split(":")
    end = time.monotonic() + 20
    while (answer := exchange((host, int(port)), head + body))[0] != 200:
        assert time.monotonic() < end, answer
    assert server.gate.bytes_left == 8 * 1024**2


def test_nonsense_is_answered(server: FakeServer) -> None:
    http = fuzz_http(server, 1200, seed=1)
    assert http[200] and http[400] and http[404] and http[413]
    codes = fuzz_grpc(server, 600, seed=1)
    assert codes["INVALID_ARGUMENT"] and codes["NOT_FOUND"]
    is_well(server)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_much_nonsense_is_answered_and_forgotten(server: FakeServer) -> None:
    rss: Callable[[], int] = lambda: psutil.Process().memory_info().rss  # noqa: E731
    fuzz_http(server, 2000, seed=2)
    fuzz_grpc(server, 2000, seed=2)
    before = rss()
    fuzz_http(server, 12_000, seed=3)
    fuzz_grpc(server, 8_000, seed=3)
    is_well(server)
    assert rss() - before < 16 * 1024**2


def test_a_request_that_trickles_in_is_cut_off(server: FakeServer) -> None:
    host, port = server.http.split(":")
    for begun in (
        b"",
        b"POST /v2/models/add/in",
        b"POST /v2/models/add/infer HTTP/1.1\r\nhost: x\r\ncontent-length: 99\r\n\r\n{",
    ):
        with socket.create_connection((host, int(port)), timeout=30) as connection:
            connection.sendall(begun)
            answer = b""
            while piece := connection.recv(4096):
                answer += piece
            assert b" 408 " in answer and b"took too long" in answer
    is_well(server)
