"""GRPCInferenceService, all twenty calls of it, on the stubs that tritonclient brings.

Each call is that of `control` or `inference`; here are only messages and codes.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import json_format
from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc

from tenantdl.daemon.protocol import grpc_infer
from tenantdl.daemon.protocol.access import Caller
from tenantdl.daemon.protocol.control import Control
from tenantdl.daemon.protocol.grpc_infer import value_of
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

Handler = Callable[[Any, Caller], Awaitable[Any]]


class _Servicer:
    """The handlers, by the names of the calls."""

    def __init__(self, gate: Gate, control: Control) -> None:
        self._gate = gate
        self._control = control

    async def ServerLive(self, request: Any, who: Caller | None) -> Any:
        return pb.ServerLiveResponse(live=self._control.live())

    async def ServerReady(self, request: Any, who: Caller | None) -> Any:
        return pb.ServerReadyResponse(ready=self._control.ready())

    async def ModelReady(self, request: Any, who: Caller) -> Any:
        ready = self._control.model_ready(who, request.name, request.version)
        return pb.ModelReadyResponse(ready=ready)

    async def ServerMetadata(self, request: Any, who: Caller) -> Any:
        return pb.ServerMetadataResponse(**self._control.server())

    async def ModelMetadata(self, request: Any, who: Caller) -> Any:
        found = self._control.model(who, request.name, request.version)
        return json_format.ParseDict(found, pb.ModelMetadataResponse())

    async def ModelConfig(self, request: Any, who: Caller) -> Any:
        found = self._control.config(who, request.name, request.version)
        return json_format.ParseDict({"config": found}, pb.ModelConfigResponse())

    async def ModelStatistics(self, request: Any, who: Caller) -> Any:
        found = self._control.statistics(who, request.name, request.version)
        return json_format.ParseDict(found, pb.ModelStatisticsResponse())

    async def RepositoryIndex(self, request: Any, who: Caller) -> Any:
        found = self._control.index(who, ready=request.ready)
        return json_format.ParseDict({"models": found}, pb.RepositoryIndexResponse())

    async def RepositoryModelLoad(self, request: Any, who: Caller) -> Any:
        parameters = {key: value_of(value) for key, value in request.parameters.items()}
        await self._control.load(who, request.model_name, parameters)
        return pb.RepositoryModelLoadResponse()

    async def RepositoryModelUnload(self, request: Any, who: Caller) -> Any:
        await self._control.unload(who, request.model_name)
        return pb.RepositoryModelUnloadResponse()

    async def SystemSharedMemoryStatus(self, request: Any, who: Caller) -> Any:
        found = {
            region["name"]: region for region in self._control.memory_status(who, request.name)
        }
        return json_format.ParseDict({"regions": found}, pb.SystemSharedMemoryStatusResponse())

    async def SystemSharedMemoryRegister(self, request: Any, who: Caller) -> Any:
        self._control.memory_register(
            who, request.name, request.key, request.offset, request.byte_size
        )
        return pb.SystemSharedMemoryRegisterResponse()

    async def SystemSharedMemoryUnregister(self, request: Any, who: Caller) -> Any:
        self._control.memory_unregister(who, request.name)
        return pb.SystemSharedMemoryUnregisterResponse()

    async def CudaSharedMemoryStatus(self, request: Any, who: Caller) -> Any:
        self._control.cuda_status(request.name)
        return pb.CudaSharedMemoryStatusResponse()

    async def CudaSharedMemoryRegister(self, request: Any, who: Caller) -> Any:
        self._control.cuda_register(request.name)

    async def CudaSharedMemoryUnregister(self, request: Any, who: Caller) -> Any:
        self._control.cuda_unregister(request.name)
        return pb.CudaSharedMemoryUnregisterResponse()

    async def TraceSetting(self, request: Any, who: Caller) -> Any:
        asked = {key: list(value.value) for key, value in request.settings.items()}
        found = self._control.trace_setting(who, request.model_name, asked)
        settings = {
            key: {"value": value if isinstance(value, list) else [value]}
            for key, value in found.items()
        }
        return json_format.ParseDict({"settings": settings}, pb.TraceSettingResponse())

    async def LogSettings(self, request: Any, who: Caller) -> Any:
        asked = {key: value_of(value) for key, value in request.settings.items()}
        answer = pb.LogSettingsResponse()
        for key, value in self._control.log_setting(who, asked).items():
            kind = {bool: "bool_param", int: "uint32_param", str: "string_param"}[type(value)]
            setattr(answer.settings[key], kind, value)
        return answer


# Health is told to everybody.
_OPEN = ("ServerLive", "ServerReady")


class GrpcService(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
    """All calls, with who asks found out and errors turned into codes."""

    def __init__(self, gate: Gate, control: Control) -> None:
        self._gate = gate
        servicer = _Servicer(gate, control)
        for name in pb.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods_by_name:
            if name not in ("ModelInfer", "ModelStreamInfer"):
                setattr(self, name, self._answering(getattr(servicer, name), is_open=name in _OPEN))

    def _answering(self, handler: Any, *, is_open: bool) -> Any:
        async def answer(request: Any, context: Any) -> Any:
            try:
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
                response = await grpc_infer.infer(self._gate, caller, request, arrived, metadata)
                if _wants_final(request):
                    response.parameters["triton_final_response"].bool_param = True
                answers.put_nowait(pb.ModelStreamInferResponse(infer_response=response))
            except asyncio.CancelledError:
                raise
            except Exception as error:
                answer = pb.ModelStreamInferResponse(error_message=_known(error).message)
                answer.infer_response.id = request.id
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
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(GrpcService(gate, control), server)
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
