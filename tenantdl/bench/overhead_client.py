"""Clients for `bench overhead` that cost as little as a client can: requests are made once and sent
again and again, answers are awaited and not looked at. The same for every server."""

from __future__ import annotations

import asyncio
import re
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from multiprocessing.shared_memory import SharedMemory
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import grpc
import msgspec
import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2 as pb

from tenantdl.errors import ExecutionError
from tenantdl.load.protocol import (
    HEADER_LENGTH,
    datatype_of,
    decode_response,
    encode_request,
    response_arrays,
)

Array = NDArray[Any]
_SERVICE = "/inference.GRPCInferenceService/"
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_TIMEOUT_S = 60.0
Call = Callable[[], object]


class Asked(NamedTuple):
    """A request: `model` with `inputs`; `outputs`: their sizes in bytes by name."""

    model: str
    inputs: Mapping[str, Array]
    outputs: Mapping[str, int]


class HttpCaller:
    """One connection that stays open."""

    def __init__(self, url: str) -> None:
        address = urlsplit(url)
        self._host = f"{address.hostname}:{address.port}"
        self._sock = socket.create_connection((address.hostname, address.port or 0), _TIMEOUT_S)
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def close(self) -> None:
        """Hang up."""
        self._sock.close()

    def request(self, path: str, body: bytes, header_length: int | None = None) -> bytes:
        """The bytes of a POST."""
        head = f"POST {path} HTTP/1.1\r\nHost: {self._host}\r\nContent-Length: {len(body)}\r\n"
        if header_length is not None:
            head += f"{HEADER_LENGTH}: {header_length}\r\n"
        return f"{head}\r\n".encode() + body

    def call(self, request: bytes) -> tuple[bytes, bytes]:
        """Send `request`; head and body of the answer. Raises ExecutionError for a refusal."""
        self._sock.sendall(request)
        answer = self._sock.recv(1 << 20)
        while (end := answer.find(b"\r\n\r\n")) < 0:
            answer += self._more()
        found = _LENGTH.search(answer, 0, end)
        size = end + 4 + (int(found[1]) if found else 0)
        while len(answer) < size:
            answer += self._more()
        if not answer.startswith(b"HTTP/1.1 200"):
            raise ExecutionError(f"{self._host} answered {answer[:300]!r}")
        return answer[:end], answer[end + 4 :]

    def _more(self) -> bytes:
        more = self._sock.recv(1 << 20)
        if not more:
            raise ExecutionError(f"{self._host} has hung up")
        return more


class GrpcCaller:
    """One channel that stays open."""

    def __init__(self, address: str) -> None:
        unlimited = [(f"grpc.max_{way}_message_length", -1) for way in ("send", "receive")]
        self._channel = grpc.insecure_channel(address, options=unlimited)

    def close(self) -> None:
        """Hang up."""
        self._channel.close()

    def method(self, name: str) -> Callable[[bytes], bytes]:
        """A call with bytes in and out."""
        made = self._channel.unary_unary(_SERVICE + name)
        return lambda message: made(message, timeout=_TIMEOUT_S)


@contextmanager
def opened(protocol: str, memory: str, url: str, grpc_address: str, asked: Asked) -> Iterator[Call]:
    """A function that sends `asked` and waits for its answer. `protocol`: http or grpc. `memory`:
    none, or system, for inputs and outputs in shared memory that the server was told of."""
    with ExitStack() as stack:
        shared = stack.enter_context(_shared(asked)) if memory == "system" else None
        if protocol == "http":
            caller = HttpCaller(url)
            stack.callback(caller.close)
            yield _http(caller, asked, shared, stack)
        else:
            channel = GrpcCaller(grpc_address)
            stack.callback(channel.close)
            yield _grpc(channel, asked, shared, stack)


def answer(url: str, asked: Asked) -> dict[str, Array]:
    """The outputs of `asked` over HTTP, once. Raises ExecutionError, UserError."""
    caller = HttpCaller(url)
    try:
        body, length = encode_request(asked.inputs, {}, asked.outputs)
        request = caller.request(f"/v2/models/{asked.model}/infer", body, length)
        head, body = caller.call(request)
    finally:
        caller.close()
    found = re.search(HEADER_LENGTH.encode() + rb": *(\d+)", head, re.IGNORECASE)
    size = int(found[1]) if found else len(body)
    outputs = response_arrays(decode_response(body, size), memoryview(body)[size:])
    return {name: array.copy() for name, array in outputs.items()}


class _Shared(NamedTuple):
    """A region: where each tensor of a request is in it, as (offset, size)."""

    memory: SharedMemory
    places: Mapping[str, tuple[int, int]]

    def parameters(self, name: str) -> dict[str, Any]:
        """What a request says of tensor `name`."""
        offset, size = self.places[name]
        return {
            "shared_memory_region": self.memory.name,
            "shared_memory_offset": offset,
            "shared_memory_byte_size": size,
        }


@contextmanager
def _shared(asked: Asked) -> Iterator[_Shared]:
    sizes = {name: array.nbytes for name, array in asked.inputs.items()} | dict(asked.outputs)
    places, total = {}, 0
    for name, size in sizes.items():
        places[name] = (total, size)
        total += -(-size // 64) * 64
    memory = SharedMemory(create=True, size=total)
    buffer: Any = memory.buf
    try:
        for name, array in asked.inputs.items():
            offset, size = places[name]
            buffer[offset : offset + size] = array.tobytes()
        yield _Shared(memory, places)
    finally:
        del buffer
        memory.close()
        memory.unlink()


def _http(caller: HttpCaller, asked: Asked, shared: _Shared | None, stack: ExitStack) -> Call:
    path = f"/v2/models/{asked.model}/infer"
    if shared is None:
        request = caller.request(path, *encode_request(asked.inputs, {}, asked.outputs))
        return lambda: caller.call(request)
    region = f"/v2/systemsharedmemory/region/{shared.memory.name}"
    told = {"key": f"/{shared.memory.name}", "offset": 0, "byte_size": shared.memory.size}
    caller.call(caller.request(f"{region}/register", msgspec.json.encode(told)))
    stack.callback(lambda: caller.call(caller.request(f"{region}/unregister", b"")))
    message = {
        "inputs": [
            {
                "name": name,
                "shape": array.shape,
                "datatype": datatype_of(array),
                "parameters": shared.parameters(name),
            }
            for name, array in asked.inputs.items()
        ],
        "outputs": [
            {"name": name, "parameters": shared.parameters(name)} for name in asked.outputs
        ],
    }
    request = caller.request(path, msgspec.json.encode(message))
    return lambda: caller.call(request)


def _grpc(channel: GrpcCaller, asked: Asked, shared: _Shared | None, stack: ExitStack) -> Call:
    message = pb.ModelInferRequest(model_name=asked.model)
    for name, array in asked.inputs.items():
        shape, kind = array.shape, datatype_of(array)
        tensor = message.inputs.add(name=name, shape=shape, datatype=kind)
        if shared is None:
            message.raw_input_contents.append(array.tobytes())
        else:
            _set(tensor.parameters, shared.parameters(name))
    for name in asked.outputs:
        output = message.outputs.add(name=name)
        if shared is not None:
            _set(output.parameters, shared.parameters(name))
    if shared is not None:
        name = shared.memory.name
        told = pb.SystemSharedMemoryRegisterRequest(
            name=name, key=f"/{name}", byte_size=shared.memory.size
        )
        channel.method("SystemSharedMemoryRegister")(told.SerializeToString())
        forget = pb.SystemSharedMemoryUnregisterRequest(name=name).SerializeToString()
        stack.callback(lambda: channel.method("SystemSharedMemoryUnregister")(forget))
    infer, request = channel.method("ModelInfer"), message.SerializeToString()
    return lambda: infer(request)


def _set(parameters: Any, values: Mapping[str, Any]) -> None:
    for key, value in values.items():
        kind = "string_param" if isinstance(value, str) else "int64_param"
        setattr(parameters[key], kind, value)


class _Loop(asyncio.Protocol):
    """One connection that sends its request again as soon as the answer is there."""

    def __init__(self, request: bytes, counts: list[int], ended: asyncio.Future[None]) -> None:
        self._request, self._counts, self._ended = request, counts, ended
        self._answer = b""

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._answer += data
        end = self._answer.find(b"\r\n\r\n")
        found = _LENGTH.search(self._answer, 0, end) if end >= 0 else None
        if found is None or len(self._answer) < end + 4 + int(found[1]):
            return
        if not self._answer.startswith(b"HTTP/1.1 200") and not self._ended.done():
            self._ended.set_exception(ExecutionError(f"a server answered {self._answer[:300]!r}"))
            return
        self._counts[0] += 1
        self._answer = b""
        self._transport.write(self._request)

    def connection_lost(self, error: Exception | None) -> None:
        if not self._ended.done():
            self._ended.set_exception(ExecutionError("a server has hung up"))


def saturate(url: str, asked: Asked, connections: int, seconds: float) -> float:
    """Requests a second with `connections` of them always under way, over HTTP; after a tenth of
    the time more, which does not count. Raises ExecutionError for refusals."""
    import uvloop  # as the servers: the client should not be what is measured

    caller = HttpCaller(url)
    body = encode_request(asked.inputs, {}, asked.outputs)
    request = caller.request(f"/v2/models/{asked.model}/infer", *body)
    caller.close()
    return uvloop.run(_saturate(url, request, connections, seconds))


async def _saturate(url: str, request: bytes, connections: int, seconds: float) -> float:
    loop, address, counts = asyncio.get_running_loop(), urlsplit(url), [0]
    ended: asyncio.Future[None] = loop.create_future()
    made: Sequence[tuple[Any, Any]] = [
        await loop.create_connection(
            lambda: _Loop(request, counts, ended), address.hostname or "", address.port or 0
        )
        for _ in range(connections)
    ]
    try:
        await asyncio.wait([ended], timeout=seconds / 10)
        before, begun = counts[0], time.perf_counter()
        await asyncio.wait([ended], timeout=seconds)
        if ended.done():
            await ended
        return (counts[0] - before) / (time.perf_counter() - begun)
    finally:
        if not ended.done():
            ended.cancel()
        for transport, _ in made:
            transport.abort()


def percentiles(ns: Sequence[int]) -> tuple[float, float]:
    """p50 and p99 in µs."""
    p50, p99 = np.percentile(np.array(ns), [50, 99])
    return float(p50) / 1e3, float(p99) / 1e3
