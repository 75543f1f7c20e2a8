"""The open-loop client against small servers: what it sends, when, and how it counts."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tenantdl.errors import ExecutionError
from tenantdl.load.issuer import BROKEN, DROPPED, Plan, Sample, Stream, drive, issue
from tenantdl.load.protocol import HEADER_LENGTH, InferResponse, encode_response
from tenantdl.units import MS

Handler = Callable[[Request], Awaitable[Response]]


@pytest.fixture
def serve() -> Iterator[Callable[[Handler], str]]:
    stops: list[Callable[[], None]] = []

    def start(handler: Handler) -> str:
        listener = socket.create_server(("127.0.0.1", 0))
        app = Starlette(routes=[Route("/{path:path}", handler, methods=["POST"])])
        config = uvicorn.Config(app, log_level="error", lifespan="off", access_log=False)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()

        def stop() -> None:
            server.should_exit = server.force_exit = True
            thread.join()
            listener.close()

        stops.append(stop)
        return "http://{}:{}".format(*listener.getsockname())

    yield start
    for stop in stops:
        stop()


def stream(tmp_path: Path, times: list[int], path: str = "/a", body: bytes = b"12345") -> Stream:
    file = tmp_path / f"{path.strip('/')}.body"
    file.write_bytes(body)
    return Stream(path.strip("/"), path, str(file), 3, times)


def test_every_request_is_sent_with_its_body_and_counted(
    serve: Callable[[Handler], str], tmp_path: Path
) -> None:
    seen: list[tuple[str, bytes, str | None]] = []

    async def handler(request: Request) -> Response:
        length = request.headers.get("inference-header-content-length")
        seen.append((request.url.path, await request.body(), length))
        return Response(status_code=200 if request.url.path == "/a" else 429)

    streams = [
        stream(tmp_path, [0, 30 * MS, 60 * MS]),
        stream(tmp_path, [45 * MS], "/b", b"x" * 300_000),
    ]
    samples = issue(Plan(serve(handler), streams, in_flight_max=9, timeout_s=20))
    assert sorted((s.stream, s.scheduled, s.status) for s in samples) == [
        (0, 0, 200),
        (0, 30 * MS, 200),
        (0, 60 * MS, 200),
        (1, 45 * MS, 429),
    ]
    assert sorted(path for path, _, _ in seen) == ["/a", "/a", "/a", "/b"]
    assert {body for path, body, _ in seen if path == "/a"} == {b"12345"}
    assert {length for _, _, length in seen} == {"3"}
    assert all(0 <= s.delay <= s.latency for s in samples)


def test_a_slow_server_does_not_slow_the_client_down(
    serve: Callable[[Handler], str], tmp_path: Path
) -> None:
    """Open loop: all are sent while the first is still open, and latency counts from when due."""
    opened: list[int] = []
    all_open = asyncio.Event()

    async def handler(request: Request) -> Response:
        opened.append(1)
        if len(opened) == 5:
            all_open.set()
        await all_open.wait()
        return Response()

    times = [20 * MS * step for step in range(5)]
    samples = issue(Plan(serve(handler), [stream(tmp_path, times)], in_flight_max=5, timeout_s=60))
    assert [s.status for s in samples] == [200] * 5
    latency = {s.scheduled: s.latency for s in samples}
    assert all(latency[at] >= times[-1] - at for at in times)


def test_what_is_due_beyond_the_bound_is_dropped_and_counted(
    serve: Callable[[Handler], str], tmp_path: Path
) -> None:
    released = asyncio.Event()

    async def handler(request: Request) -> Response:
        await asyncio.wait_for(released.wait(), 3)
        return Response()

    times = [MS * step for step in range(6)]
    plan = Plan(serve(handler), [stream(tmp_path, times)], in_flight_max=2, timeout_s=1.0)
    samples = issue(plan)
    assert sorted(s.status for s in samples) == [DROPPED] * 4 + [BROKEN] * 2


def test_nobody_listening_is_counted_as_broken(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    plan = Plan(f"http://127.0.0.1:{port}", [stream(tmp_path, [0, 5])], 2, timeout_s=5)
    assert [sample.status for sample in issue(plan)] == [BROKEN, BROKEN]


def test_a_failing_issuer_is_an_execution_error(tmp_path: Path) -> None:
    gone = stream(tmp_path, [0])
    Path(gone.body).unlink()
    with pytest.raises(ExecutionError, match="No such file"):
        issue(Plan("http://127.0.0.1:1", [gone], 2, timeout_s=5))


def test_samples_are_plain_data() -> None:
    assert tuple(Sample.__struct_fields__) == ("stream", "scheduled", "delay", "latency", "status")


def test_one_by_one_is_never_two_at_once(serve: Callable[[Handler], str], tmp_path: Path) -> None:
    inside = most = 0
    order = []

    async def handler(request: Request) -> Response:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        order.append(request.url.path)
        await asyncio.sleep(0.01)
        inside -= 1
        return Response()

    streams = [stream(tmp_path, [0, 0, 0]), stream(tmp_path, [0, 0], "/b")]
    plan = Plan(serve(handler), streams, in_flight_max=1, timeout_s=20, one_by_one=True)
    samples = drive(plan).samples
    assert most == 1
    assert order == ["/a", "/a", "/a", "/b", "/b"]
    assert all(sample.latency >= 10 * MS for sample in samples)


def test_a_stream_that_missed_too_much_ends_the_run(
    serve: Callable[[Handler], str], tmp_path: Path
) -> None:
    """Refused, late while open: both are misses; nothing more is sent then."""

    async def handler(request: Request) -> Response:
        if request.url.path == "/b":
            await asyncio.sleep(0.2)
        return Response(status_code=503 if request.url.path == "/a" else 200)

    times = [10 * MS * step for step in range(300)]
    for path in ("/a", "/b"):
        bad = msgspec.structs.replace(stream(tmp_path, times, path), qos=100 * MS, misses_max=3)
        outcome = drive(Plan(serve(handler), [bad], in_flight_max=99, timeout_s=20))
        assert outcome.stopped
        assert 4 <= len(outcome.samples) < 300


def test_answers_are_compared(serve: Callable[[Handler], str], tmp_path: Path) -> None:
    count = 0

    async def handler(request: Request) -> Response:
        nonlocal count
        count += 1
        value = np.array([1.0, 2.0 if count != 3 else 2.5], np.float32)
        response = InferResponse("m", "1", [], id=str(count))
        chunks, length = encode_response(response, {"y": value}, frozenset({"y"}))
        return Response(b"".join(chunks), headers={HEADER_LENGTH: str(length)})

    plan = Plan(
        serve(handler),
        [stream(tmp_path, [0] * 5)],
        in_flight_max=1,
        timeout_s=20,
        compare=True,
        one_by_one=True,
    )
    assert drive(plan).unlike == 1
