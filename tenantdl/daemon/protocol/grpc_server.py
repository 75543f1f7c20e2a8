"""GRPCInferenceService, all twenty calls of it, on the stubs that tritonclient brings.

Each call is that of `control` or `inference`; here are only messages and codes.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass
from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tritonclient.grpc import service_pb2 as pb

from tenantdl.daemon.protocol import grpc_infer
from tenantdl.daemon.protocol.access import Caller
from tenantdl.daemon.protocol.control import Control
from tenantdl.daemon.protocol.grpc_calls import Calls
from tenantdl.daemon.protocol.inference import Gate
from tenantdl.daemon.protocol.refusals import ProtocolError, as_protocol_error
from tenantdl.errors import UserError
from tenantdl.units import Ns

_log = logging.getLogger(__name__)
_CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    499: grpc.StatusCode.CANCELLED,
    501: grpc.StatusCode.UNIMPLEMENTED,
    503: grpc.StatusCode.UNAVAILABLE,
}
_STREAM_MAX = 64
_SERVICE = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"]


# Health is told to everybody.
_OPEN = ("ServerLive", "ServerReady")


class GrpcService:
    """All calls, with who asks found out and errors turned into codes."""

    def __init__(self, gate: Gate, control: Control) -> None:
        self._gate = gate
        servicer = Calls(gate, control)
        for name in _SERVICE.methods_by_name:
            if name not in ("ModelInfer", "ModelStreamInfer"):
                setattr(self, name, self._answering(getattr(servicer, name), is_open=name in _OPEN))

    def _answering(self, handler: Any, *, is_open: bool) -> Any:
        async def answer(request: Any, context: Any) -> Any:
            try:
                _check(request)
                return await handler(request, None if is_open else self._caller(_metadata(context)))
            except asyncio.CancelledError:
                raise
            except Exception as error:
                await _abort(context, error)

        return answer

    def _caller(self, metadata: Mapping[str, str]) -> Caller:
        return self._gate.access.caller(metadata.get("authorization"))

    async def ModelInfer(self, request: Any, context: Any) -> Any:
        """One inference."""
        arrived = Ns(time.monotonic_ns())
        try:
            _check(request)
            metadata = _metadata(context)
            caller = self._caller(metadata)
            return await grpc_infer.infer(self._gate, caller, request, arrived, metadata)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            await _abort(context, error)

    async def ModelStreamInfer(self, requests: Any, context: Any) -> AsyncIterator[Any]:
        """Requests as they come, answers as they are ready; an error is an answer."""
        metadata = _metadata(context)
        try:
            caller = self._caller(metadata)
        except ProtocolError as error:
            await _abort(context, error)
            return
        answers: asyncio.Queue[Any] = asyncio.Queue()
        room = asyncio.Semaphore(_STREAM_MAX)
        running: set[asyncio.Task[None]] = set()

        async def one(request: Any, arrived: Ns) -> None:
            try:
                _check(request)
                response = await grpc_infer.infer(self._gate, caller, request, arrived, metadata)
                if _wants_final(request):
                    response.parameters["triton_final_response"].bool_param = True
                answers.put_nowait(pb.ModelStreamInferResponse(infer_response=response))
            except asyncio.CancelledError:
                raise
            except Exception as error:
                answer = pb.ModelStreamInferResponse(error_message=_known(error).message)
                answer.infer_response.id = request.id if request else ""
                answers.put_nowait(answer)
            finally:
                room.release()

        async def read() -> None:
            async for request in requests:
                await room.acquire()
                task = asyncio.ensure_future(one(request, Ns(time.monotonic_ns())))
                running.add(task)
                task.add_done_callback(running.discard)
            await asyncio.gather(*running)

        reading = asyncio.ensure_future(read())
        reading.add_done_callback(lambda _: answers.put_nowait(None))
        try:
            while (answer := await answers.get()) is not None:
                yield answer
        finally:
            reading.cancel()
            for task in running:
                task.cancel()


class _Health(health_pb2_grpc.HealthServicer):  # type: ignore[misc]
    """What Kubernetes' gRPC probes ask for."""

    def __init__(self, control: Control) -> None:
        self._control = control

    async def Check(self, request: Any, context: Any) -> Any:
        """Whether requests are served."""
        serving = health_pb2.HealthCheckResponse.SERVING
        not_serving = health_pb2.HealthCheckResponse.NOT_SERVING
        if request.service not in ("", "inference.GRPCInferenceService"):
            await context.abort(grpc.StatusCode.NOT_FOUND, "unknown service")
        state = serving if self._control.ready() else not_serving
        return health_pb2.HealthCheckResponse(status=state)


async def start_grpc(
    gate: Gate,
    control: Control,
    address: str,
    tls: tuple[Path, Path] | None,
    message_bytes_max: int,
) -> tuple[aio.Server, int]:
    """A server on `address` (with `tls`: certificate and key), and its port. Raises UserError."""
    options: Sequence[tuple[str, Any]] = [
        ("grpc.max_receive_message_length", message_bytes_max),
        ("grpc.max_send_message_length", -1),
        ("grpc.so_reuseport", 0),
    ]
    server = aio.server(options=options)
    server.add_generic_rpc_handlers((_handlers(GrpcService(gate, control)),))
    health_pb2_grpc.add_HealthServicer_to_server(_Health(control), server)
    try:
        if tls is None:
            port = server.add_insecure_port(address)
        else:
            certificate, key = (path.read_bytes() for path in tls)
            credentials = grpc.ssl_server_credentials([(key, certificate)])
            port = server.add_secure_port(address, credentials)
    except (RuntimeError, OSError) as error:
        raise UserError(f"cannot serve gRPC on {address}: {error}") from error
    if port == 0:
        raise UserError(f"cannot serve gRPC on {address}")
    await server.start()
    return server, port


def _handlers(service: GrpcService) -> Any:
    """As the generated code has it, but for messages that cannot be parsed: they become None, which
    is answered like every other bad request."""

    def parser(kind: Any) -> Callable[[bytes], Any]:
        def parse(data: bytes) -> Any:
            try:
                return kind.FromString(data)
            except DecodeError:
                return None

        return parse

    handlers = {}
    for name, method in _SERVICE.methods_by_name.items():
        streams = name == "ModelStreamInfer"
        make = (
            grpc.stream_stream_rpc_method_handler
            if streams
            else grpc.unary_unary_rpc_method_handler
        )
        asked, answer = (GetMessageClass(kind) for kind in (method.input_type, method.output_type))
        handlers[name] = make(
            getattr(service, name),
            request_deserializer=parser(asked),
            response_serializer=answer.SerializeToString,
        )
    return grpc.method_handlers_generic_handler(_SERVICE.full_name, handlers)


def _check(request: Any) -> None:
    if request is None:
        raise ProtocolError(400, "the message is not one of this call's")


def _metadata(context: Any) -> dict[str, str]:
    """What a client sends beside its message."""
    return {key: str(value) for key, value in context.invocation_metadata() or ()}


async def _abort(context: Any, error: Exception) -> None:
    known = _known(error)
    await context.abort(_CODES.get(known.status, grpc.StatusCode.INTERNAL), known.message)


def _known(error: Exception) -> ProtocolError:
    known = as_protocol_error(error)
    if known is None:
        _log.error("a request has found a bug", exc_info=error)
        known = ProtocolError(500, f"internal error: {type(error).__name__}")
    return known


def _wants_final(request: Any) -> bool:
    wanted = request.parameters.get("triton_enable_empty_final_response")
    return wanted is not None and bool(wanted.bool_param)
