"""Nonsense below gRPC: frames of HTTP/2 that are nearly right, among some that are not."""

from __future__ import annotations

import random
import socket
from collections import Counter
from collections.abc import Iterator

import psutil
import pytest

from tenantdl.daemon.protocol import http2_wire as wire
from tests.daemon.fake_service import FakeServer
from tests.daemon.test_fuzz import grpc_payload, is_well


@pytest.fixture(scope="module")
def server() -> Iterator[FakeServer]:
    with FakeServer(request_s_max=1).running() as server:
        yield server


def http2_frames(rng: random.Random) -> bytes:
    """A connection's bytes: calls that are nearly right, among frames that are not."""
    sent = [wire.PREFACE if rng.random() < 0.97 else rng.randbytes(24)]
    sent.append(
        wire.settings_frame([(rng.randrange(9), rng.choice([0, 1, 2**14, 2**31, 2**32 - 1]))])
    )
    for number in range(rng.randrange(1, 12)):
        stream = rng.choice([2 * number + 1] * 6 + [0, 2, 1, 2**31 - 1])
        path = rng.choice([b"ModelInfer", b"ModelInfer", b"ModelStreamInfer", b"None"])
        headers = [
            (b":method", b"POST"),
            (b":path", b"/inference.GRPCInferenceService/" + path),
            (b"grpc-encoding", rng.choice([b"identity", b"gzip", b"deflate", b"br"])),
        ]
        block = wire.header_block(headers)
        if rng.random() < 0.2:
            block = rng.randbytes(rng.randrange(40))
        payload = grpc_payload(rng)
        length = rng.choice([len(payload)] * 6 + [0, 2**32 - 1, 5])
        data = rng.choice([0, 0, 0, 1]).to_bytes(1, "big") + length.to_bytes(4, "big") + payload
        kinds = [(wire.HEADERS, 4, block), (wire.DATA, 1, data)] * 3 + [
            (wire.HEADERS, rng.randrange(256), block),
            (wire.DATA, rng.randrange(256), data[: rng.randrange(len(data))]),
            (wire.CONTINUATION, rng.choice([0, 4]), block),
            (rng.randrange(12), rng.randrange(256), rng.randbytes(rng.choice([0, 4, 5, 8, 12]))),
            (wire.RST_STREAM, 0, b"\0\0\0\x08"),
            (wire.WINDOW_UPDATE, 0, rng.choice([b"\0\0\0\0", b"\x7f\xff\xff\xff", b"\0\0\0\1"])),
        ]
        begin = rng.randrange(2) * 6 * (rng.random() < 0.3)
        for kind, flags, body in (
            kinds[begin : begin + 2] if rng.random() < 0.7 else [rng.choice(kinds)]
        ):
            sent.append(wire.frame(kind, flags, stream, body))
    whole = b"".join(sent)
    return whole if rng.random() < 0.9 else whole[: rng.randrange(len(whole))]


def fuzz_http2(server: FakeServer, count: int, seed: int) -> Counter[str]:
    """Whether connections were hung up by the server or by us."""
    rng = random.Random(seed)
    host, port = server.grpc.split(":")
    seen: Counter[str] = Counter()
    for _ in range(count):
        data, answer = http2_frames(rng), b""
        with socket.create_connection((host, int(port)), timeout=20) as connection:
            try:
                connection.sendall(data)
                connection.shutdown(socket.SHUT_WR)
                while piece := connection.recv(65536):
                    answer += piece
            except (ConnectionResetError, BrokenPipeError):
                seen["reset"] += 1
        seen["told why" if b"\0\0" + bytes((wire.GOAWAY,)) in answer else "ended"] += 1
    return seen


def test_bad_frames_end_the_connection_and_nothing_else(server: FakeServer) -> None:
    assert fuzz_http2(server, 600, seed=1)["told why"]
    is_well(server)


@pytest.mark.slow
def test_many_bad_frames_are_forgotten(server: FakeServer) -> None:
    fuzz_http2(server, 1000, seed=2)
    before = psutil.Process().memory_info().rss
    fuzz_http2(server, 5000, seed=3)
    is_well(server)
    assert psutil.Process().memory_info().rss - before < 16 * 1024**2


def test_who_says_nothing_is_cut_off(server: FakeServer) -> None:
    host, port = server.grpc.split(":")
    for begun in (b"", wire.PREFACE[:10]):
        with socket.create_connection((host, int(port)), timeout=20) as connection:
            connection.sendall(begun)
            answer = b""
            while piece := connection.recv(4096):
                answer += piece
        assert b"took too long" in answer


def test_a_message_that_trickles_in_is_refused(server: FakeServer) -> None:
    host, port = server.grpc.split(":")
    path = b"/inference.GRPCInferenceService/ModelInfer"
    block = wire.header_block([(b":method", b"POST"), (b":path", path)])
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(wire.PREFACE + wire.settings_frame([]))
        connection.sendall(wire.frame(wire.HEADERS, wire.END_HEADERS, 1, block))
        connection.sendall(wire.frame(wire.DATA, 0, 1, b"\0\0\0\0\x63begun"))
        answer = b""
        while b"took too long" not in answer:
            piece = connection.recv(4096)
            assert piece, answer
            answer += piece
    is_well(server)
