"""Everything but inference: health, metadata, statistics, the repository, shared memory, settings.

Answers are JSON values in the protocol's own words, which are the same over HTTP and gRPC.
"""

from __future__ import annotations

import re
from typing import Any, Protocol

from tenantdl import __version__
from tenantdl.daemon.catalogue import Served
from tenantdl.daemon.protocol.access import Caller, find_model, require_operator
from tenantdl.daemon.protocol.inference import Gate
from tenantdl.daemon.protocol.refusals import ProtocolError

EXTENSIONS = [
    *("classification", "sequence", "model_repository", "model_repository(unload_dependents)"),
    *("schedule_policy", "model_configuration", "system_shared_memory", "cuda_shared_memory"),
    *("binary_tensor_data", "parameters", "statistics", "trace", "logging"),
]
# What Triton says of tracing and logging; only the verbosity means something here.
_TRACE: dict[str, list[str] | str] = {
    "trace_file": "",
    "trace_level": ["OFF"],
    "trace_rate": "1000",
    "trace_count": "-1",
    "log_frequency": "0",
    "trace_mode": "triton",
}
_LOG: dict[str, Any] = {
    "log_file": "",
    "log_info": True,
    "log_warning": True,
    "log_error": True,
    "log_verbose_level": 0,
    "log_format": "default",
}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class Repository(Protocol):
    """What loads and unloads models (`tenantdl.daemon.repository.Repository`)."""

    @property
    def ready(self) -> bool:
        """Whether all has been loaded that was there at the start."""

    def index(self, *, ready: bool) -> list[dict[str, str]]:
        """All models that are or could be served."""

    async def load(self, name: str, config: str | None) -> None:
        """Load what the folder has of `name` now. Raises UserError."""

    async def unload(self, name: str) -> None:
        """Stop serving `name`. Raises UserError."""


class Control:
    """The calls of the protocol that are not inferences."""

    def __init__(self, gate: Gate, repository: Repository) -> None:
        self._gate = gate
        self._repository = repository
        self._log = dict(_LOG)

    def live(self) -> bool:
        """Whether the server answers at all."""
        return True

    def ready(self) -> bool:
        """Whether requests are served."""
        return self._gate.service.ready and self._repository.ready

    def server(self) -> dict[str, Any]:
        """Name, version, extensions."""
        return {"name": "tenantdl", "version": __version__, "extensions": EXTENSIONS}

    def model_ready(self, caller: Caller, name: str, version: str = "") -> bool:
        """Whether this model is served."""
        try:
            self._find(caller, name, version)
            return self._gate.service.ready
        except ProtocolError:
            return False

    def model(self, caller: Caller, name: str, version: str = "") -> dict[str, Any]:
        """Metadata of a model."""
        return self._find(caller, name, version).metadata()

    def config(self, caller: Caller, name: str, version: str = "") -> dict[str, Any]:
        """Configuration of a model."""
        return self._find(caller, name, version).config()

    def statistics(self, caller: Caller, name: str = "", version: str = "") -> dict[str, Any]:
        """Statistics of a model, or of all that the caller may use."""
        service = self._gate.service
        if name:
            models = [self._find(caller, name, version)]
        else:
            models = [
                model
                for model in service.catalogue.all()
                if caller.operator or caller.tenants.intersection(model.tenants)
            ]
        return {"model_stats": [service.statistics.model_stats(model) for model in models]}

    # --- repository

    def index(self, caller: Caller, *, ready: bool = False) -> list[dict[str, str]]:
        """What the caller may use (the operator: all there is), with its state."""
        found = self._repository.index(ready=ready)
        if caller.operator:
            return found
        catalogue = self._gate.service.catalogue
        mine = {m.name for m in catalogue.all() if caller.tenants & set(m.tenants)}
        return [one for one in found if one["name"] in mine]

    async def load(self, caller: Caller, name: str, parameters: dict[str, Any]) -> None:
        """Load or replace a model. Raises ProtocolError."""
        require_operator(caller)
        _check_name(name)
        for key in parameters:
            if key != "config":
                raise ProtocolError(400, f"parameter '{key}' is not supported when loading")
        config = parameters.get("config")
        await self._repository.load(name, None if config is None else str(config))

    async def unload(self, caller: Caller, name: str) -> None:
        """Stop serving a model. Raises ProtocolError."""
        require_operator(caller)
        _check_name(name)
        await self._repository.unload(name)

    # --- shared memory

    def memory_status(self, caller: Caller, name: str = "") -> list[dict[str, Any]]:
        """The caller's regions of system shared memory."""
        return self._gate.regions.status(caller, name)

    def memory_register(
        self, caller: Caller, name: str, key: object, offset: object, byte_size: object
    ) -> None:
        """Register a region of system shared memory. Raises ProtocolError."""
        if not self._gate.access.may_map_memory(caller):
            raise ProtocolError(403, "this tenant may not use shared memory")
        if (
            not isinstance(key, str)
            or not isinstance(offset, int)
            or not isinstance(byte_size, int)
        ):
            raise ProtocolError(
                400, "a region has a key (text), an offset and a byte_size (numbers)"
            )
        self._gate.regions.register(caller, name, key, offset, byte_size)

    def memory_unregister(self, caller: Caller, name: str = "") -> None:
        """Forget a region, or all of the caller's."""
        self._gate.regions.unregister(caller, name)

    def cuda_status(self, name: str = "") -> list[dict[str, Any]]:
        """There are no regions of CUDA memory on a machine without GPUs."""
        if name:
            raise ProtocolError(404, f"Unable to find cuda shared memory region: '{name}'")
        return []

    def cuda_register(self, name: str) -> None:
        """Raises ProtocolError, as Triton does where there is no GPU."""
        raise ProtocolError(
            400, f"failed to register CUDA shared memory region: '{name}', GPUs not supported"
        )

    def cuda_unregister(self, name: str = "") -> None:
        """Nothing to forget: clients ask for it before they begin."""

    # --- settings

    def trace_setting(self, caller: Caller, model: str, asked: dict[str, Any]) -> dict[str, Any]:
        """Trace settings. Only the level OFF can be set: `tenantdl trace` records what ran."""
        if model:
            self._find(caller, model)
        for key, value in asked.items():
            if key not in _TRACE:
                raise ProtocolError(400, f"'{key}' is not a trace setting")
            if value not in (None, [], _TRACE[key], [_TRACE[key]]):
                raise ProtocolError(501, f"trace setting '{key}' cannot be changed here")
        return dict(_TRACE)

    def log_setting(self, caller: Caller, asked: dict[str, Any]) -> dict[str, Any]:
        """Log settings; those of the operator are kept. Raises ProtocolError."""
        if asked:
            require_operator(caller)
        for key, value in asked.items():
            if key not in _LOG:
                raise ProtocolError(400, f"'{key}' is not a log setting")
            if type(value) is not type(_LOG[key]):
                raise ProtocolError(400, f"log setting '{key}' cannot be {value!r}")
            if key in ("log_file", "log_format") and value != _LOG[key]:
                raise ProtocolError(501, f"log setting '{key}' cannot be changed here")
        self._log |= asked
        return dict(self._log)

    def _find(self, caller: Caller, name: str, version: str = "") -> Served:
        return find_model(self._gate.service.catalogue, caller, name, version)


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise ProtocolError(400, f"'{name[:64]}' is not the name of a model")
