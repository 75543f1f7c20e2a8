"""What a client of gRPC may take: the bounds of messages, windows and streams."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from tenantdl.daemon.protocol import http2_wire as wire
from tests.daemon.fake_service import FakeServer
from tests.daemon.test_fuzz import is_well

PATH = b"/inference.GRPCInferenceService/ModelInfer"
BLOCK = wire.header_block([(b":method", b"POST"), (b":path", PATH)])


@pytest.fixture(scope="module")
def server() -> Iterator[FakeServer]:
    with FakeServer().running() as server:
        yield server


def told(server: FakeServer, frames: bytes, reason: bytes) -> None:
    """A client that sends `frames` is told `reason`, and nobody else minds."""
    host, port = server.grpc.split(":")
    answer = b""
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(wire.PREFACE + wire.settings_frame([]) + frames)
        while reason not in answer:
            piece = connection.recv(65536)
            assert piece, answer[-200:]
            answer += piece
    is_well(server)


def opening(stream: int) -> bytes:
    return wire.frame(wire.HEADERS, wire.END_HEADERS, stream, BLOCK)


def test_a_message_beyond_the_bound_takes_no_memory(server: FakeServer) -> None:
    begun = wire.frame(wire.DATA, 0, 1, b"\0\xff\xff\xff\xff")
    told(server, opening(1) + begun, b"message of 4294967295 bytes; at most")


def test_a_stream_may_not_outrun_its_window(server: FakeServer) -> None:
    padding = wire.frame(wire.DATA, wire.PADDED, 1, b"\xff" + bytes(255))
    many = wire.STREAM_WINDOW // 256 + 1
    told(server, opening(1) + many * padding, b"more data than was allowed")


def test_streams_that_are_taken_back_are_counted(server: FakeServer) -> None:
    frames = b"".join(
        opening(stream) + wire.number_frame(wire.RST_STREAM, stream, 8)
        for stream in range(1, 2 * 1002, 2)
    )
    told(server, frames, b"too many streams taken back")
