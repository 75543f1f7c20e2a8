"""What each call of GRPCInferenceService does, but for inference: `control`, in messages."""

from __future__ import annotations

from typing import Any

from google.protobuf import json_format
from tritonclient.grpc import service_pb2 as pb

from tenantdl.daemon.protocol.access import Caller
from tenantdl.daemon.protocol.control import Control
from tenantdl.daemon.protocol.grpc_messages import values_of
from tenantdl.daemon.protocol.inference import Gate


class Calls:
    """The handlers, by the names of the calls."""

    def __init__(self, gate: Gate, control: Control) -> None:
        self._gate = gate
        self._control = control

    async def ServerLive(self, request: Any, who: Caller | None) -> Any:
        """ServerLive."""
        return pb.ServerLiveResponse(live=self._control.live())

    async def ServerReady(self, request: Any, who: Caller | None) -> Any:
        """ServerReady."""
        return pb.ServerReadyResponse(ready=self._control.ready())

    async def ModelReady(self, request: Any, who: Caller) -> Any:
        """ModelReady."""
        ready = self._control.model_ready(who, request.name, request.version)
        return pb.ModelReadyResponse(ready=ready)

    async def ServerMetadata(self, request: Any, who: Caller) -> Any:
        """ServerMetadata."""
        return pb.ServerMetadataResponse(**self._control.server())

    async def ModelMetadata(self, request: Any, who: Caller) -> Any:
        """ModelMetadata."""
        found = self._control.model(who, request.name, request.version)
        return json_format.ParseDict(found, pb.ModelMetadataResponse())

    async def ModelConfig(self, request: Any, who: Caller) -> Any:
        """ModelConfig."""
        found = self._control.config(who, request.name, request.version)
        return json_format.ParseDict({"config": found}, pb.ModelConfigResponse())

    async def ModelStatistics(self, request: Any, who: Caller) -> Any:
        """ModelStatistics."""
        found = self._control.statistics(who, request.name, request.version)
        return json_format.ParseDict(found, pb.ModelStatisticsResponse())

    async def RepositoryIndex(self, request: Any, who: Caller) -> Any:
        """RepositoryIndex."""
        found = self._control.index(who, ready=request.ready)
        return json_format.ParseDict({"models": found}, pb.RepositoryIndexResponse())

    async def RepositoryModelLoad(self, request: Any, who: Caller) -> Any:
        """RepositoryModelLoad."""
        parameters = values_of(request.parameters)
        await self._control.load(who, request.model_name, parameters)
        return pb.RepositoryModelLoadResponse()

    async def RepositoryModelUnload(self, request: Any, who: Caller) -> Any:
        """RepositoryModelUnload."""
        await self._control.unload(who, request.model_name)
        return pb.RepositoryModelUnloadResponse()

    async def SystemSharedMemoryStatus(self, request: Any, who: Caller) -> Any:
        """SystemSharedMemoryStatus."""
        found = {
            region["name"]: region for region in self._control.memory_status(who, request.name)
        }
        return json_format.ParseDict({"regions": found}, pb.SystemSharedMemoryStatusResponse())

    async def SystemSharedMemoryRegister(self, request: Any, who: Caller) -> Any:
        """SystemSharedMemoryRegister."""
        self._control.memory_register(
            who, request.name, request.key, request.offset, request.byte_size
        )
        return pb.SystemSharedMemoryRegisterResponse()

    async def SystemSharedMemoryUnregister(self, request: Any, who: Caller) -> Any:
        """SystemSharedMemoryUnregister."""
        self._control.memory_unregister(who, request.name)
        return pb.SystemSharedMemoryUnregisterResponse()

    async def CudaSharedMemoryStatus(self, request: Any, who: Caller) -> Any:
        """CudaSharedMemoryStatus."""
        self._control.cuda_status(request.name)
        return pb.CudaSharedMemoryStatusResponse()

    async def CudaSharedMemoryRegister(self, request: Any, who: Caller) -> Any:
        """CudaSharedMemoryRegister."""
        self._control.cuda_register(request.name)

    async def CudaSharedMemoryUnregister(self, request: Any, who: Caller) -> Any:
        """CudaSharedMemoryUnregister."""
        self._control.cuda_unregister(request.name)
        return pb.CudaSharedMemoryUnregisterResponse()

    async def TraceSetting(self, request: Any, who: Caller) -> Any:
        """TraceSetting."""
        asked = {key: list(value.value) for key, value in request.settings.items()}
        found = self._control.trace_setting(who, request.model_name, asked)
        settings = {
            key: {"value": value if isinstance(value, list) else [value]}
            for key, value in found.items()
        }
        return json_format.ParseDict({"settings": settings}, pb.TraceSettingResponse())

    async def LogSettings(self, request: Any, who: Caller) -> Any:
        """LogSettings."""
        asked = values_of(request.settings)
        answer = pb.LogSettingsResponse()
        for key, value in self._control.log_setting(who, asked).items():
            kind = {bool: "bool_param", int: "uint32_param", str: "string_param"}[type(value)]
            setattr(answer.settings[key], kind, value)
        return answer
