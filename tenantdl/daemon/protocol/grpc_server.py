"""GRPCInferenceService, all twenty calls of it, with the messages that tritonclient brings, and
Kubernetes' health checks.

Each call is that of `control` or `inference`; here are only messages.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2
from tritonclient.grpc import service_pb2 as pb

from tenantdl.daemon.protocol import grpc_infer
from tenantdl.daemon.protocol.access import Caller
from tenantdl.daemon.protocol.control import Control
from tenantdl.daemon.protocol.grpc_asked import Requests
from tenantdl.daemon.protocol.grpc_calls import Calls
from tenantdl.daemon.protocol.grpc_messages import Bytes, parse, streamed
from tenantdl.daemon.protocol.grpc_stream import GrpcStream, Metadata, Method, known
from tenantdl.daemon.protocol.http2 import Connection, Headers, Limits
from tenantdl.daemon.protocol.http2_stream import Stream
from tenantdl.daemon.protocol.inference import Gate
from tenantdl.daemon.protocol.refusals import ProtocolError
from tenantdl.errors import UserError
from tenantdl.units import Ns

_SERVICE = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"]
_HEALTH = "/grpc.health.v1.Health/Check"
_FINAL = "triton_enable_empty_final_response"
# Health is told to everybody.
_OPEN = ("ServerLive", "ServerReady")
Handler = Callable[[Any, Any], Awaitable[Any]]


class GrpcServer:
    """The calls, by path, and the connections that are open."""

    def __init__(self, gate: Gate, control: Control, bytes_max: int, limits: Limits) -> None:
        self._gate, self._control, self._bytes_max = gate, control, bytes_max
        self._limits = limits
        self._requests = Requests()
        self._connections: set[Connection] = set()
        self._server: asyncio.Server | None = None
        calls = Calls(gate, control)
        self._methods = {_HEALTH: Method(self._health, is_open=True)}
        for name, method in _SERVICE.methods_by_name.items():
            if name == "ModelInfer":
                made = Method(self._infer)
            elif name == "ModelStreamInfer":
                made = Method(self._stream_infer, streams=True)
            else:
                is_open = name in _OPEN
                kind = GetMessageClass(method.input_type)
                made = Method(_answering(getattr(calls, name), kind), is_open=is_open)
            self._methods[f"/{_SERVICE.full_name}/{name}"] = made

    async def start(self, host: str, port: int, tls: ssl.SSLContext | None) -> int:
        """Listen; the port. Raises UserError."""
        loop = asyncio.get_running_loop()
        try:
            self._server = await loop.create_server(
                lambda: Connection(self._opened, self._connections, self._limits),
                *(host, port),
                ssl=tls,
                backlog=1024,
            )
        except OSError as error:
            raise UserError(f"cannot serve gRPC on {host}:{port}: {error}") from error
        return int(self._server.sockets[0].getsockname()[1])

    async def stop(self, grace_s: float) -> None:
        """Take no more requests, wait for those that are here, hang up."""
        if self._server:
            self._server.close()
        for connection in list(self._connections):
            connection.go_away()
        until = asyncio.get_running_loop().time() + grace_s
        while any(one.streams for one in self._connections):
            if asyncio.get_running_loop().time() > until:
                break
            await asyncio.sleep(0.01)
        for connection in list(self._connections):
            connection.close()

    def _opened(self, stream: Stream, headers: Headers) -> GrpcStream:
        method = self._methods.get(headers.get(":path", ""), _ABSENT)
        return GrpcStream(stream, self._gate, method, headers, self._bytes_max)

    async def _infer(
        self, caller: Any, message: memoryview, metadata: Metadata, arrived: Ns
    ) -> Sequence[Bytes]:
        asked, raw = self._requests.read(message)
        return await grpc_infer.infer(self._gate, caller, asked, raw, arrived, metadata)

    async def _stream_infer(
        self, caller: Any, message: memoryview, metadata: Metadata, arrived: Ns
    ) -> Sequence[Bytes]:
        """An error is an answer."""
        number = ""
        try:
            asked, raw = self._requests.read(message)
            number, final = asked.number, asked.parameters.get(_FINAL) is True
            answer = await grpc_infer.infer(
                self._gate, caller, asked, raw, arrived, metadata, final=final
            )
            return streamed(answer)
        except Exception as error:
            response = pb.ModelStreamInferResponse(error_message=known(error).message)
            response.infer_response.id = number
            return [response.SerializeToString()]

    async def _health(
        self, caller: Any, message: memoryview, metadata: Metadata, arrived: Ns
    ) -> Sequence[Bytes]:
        """What Kubernetes' gRPC probes ask for: whether requests are served."""
        request = parse(health_pb2.HealthCheckRequest, message)
        if request.service not in ("", _SERVICE.full_name):
            raise ProtocolError(404, "unknown service")
        answer = health_pb2.HealthCheckResponse
        status = answer.SERVING if self._control.ready() else answer.NOT_SERVING
        return [answer(status=status).SerializeToString()]


def _answering(handler: Handler, kind: Any) -> Any:
    async def call(
        caller: Caller | None, message: memoryview, metadata: Metadata, arrived: Ns
    ) -> Sequence[Bytes]:
        answer = await handler(parse(kind, message), caller)
        return [answer.SerializeToString()]

    return call


async def _absent(
    caller: Caller | None, message: memoryview, metadata: Metadata, arrived: Ns
) -> Sequence[Bytes]:
    raise ProtocolError(501, "there is no such call")


_ABSENT = Method(_absent, is_open=True)


def tls_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """What gRPC clients expect of TLS. Raises UserError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["h2"])
    try:
        context.load_cert_chain(certificate, key)
    except OSError as error:
        raise UserError(f"server.tls_cert, tls_key: cannot be used: {error}") from error
    return context
