"""The model repository: a folder of NAME/VERSION bundles, loaded and unloaded while serving.

A load brings in what the folder holds now. The versions that were served go on until the new ones
can run, requests end on the version they began on, and if a load fails nothing has changed but the
reason in the index. Which versions of a model are served: the newest one, unless the load says
otherwise (`version_policy`, as in Triton).
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import msgspec

from tenantdl.bundle.manifest import MANIFEST
from tenantdl.daemon.catalogue import Catalogue, ServedModel, open_model
from tenantdl.daemon.eager import begin
from tenantdl.errors import UserError
from tenantdl.ids import ModelId, TenantId
from tenantdl.load.workload import TenantSection

_log = logging.getLogger(__name__)
_VERSION_DIGITS = 9
_VERSIONS_MAX = 64


class Host(Protocol):
    """What runs models (`tenantdl.daemon.hosting.Hosting`)."""

    catalogue: Catalogue

    async def bring(self, model: ServedModel) -> None:
        """Load `model` and serve it. Raises what was wrong with it."""

    async def retire(self, model: ServedModel) -> None:
        """Serve `model` to nobody new; return when it is gone."""


class _Latest(msgspec.Struct, frozen=True):
    num_versions: int = 1


class _Specific(msgspec.Struct, frozen=True):
    versions: list[int]


class _Policy(msgspec.Struct, frozen=True):
    latest: _Latest | None = None
    specific: _Specific | None = None
    all: dict[str, int] | None = None


class _Config(msgspec.Struct, frozen=True):
    """What a load may say; other members of a Triton configuration are ignored."""

    version_policy: _Policy = _Policy()


@dataclass(slots=True)
class _State:
    state: str
    reason: str = ""


class Repository:
    """`root`: the folder; None where only the workload's own models are served."""

    def __init__(self, host: Host, root: Path | None) -> None:
        self._host = host
        self._root = root
        self._states: dict[tuple[str, str], _State] = {}
        self._busy: dict[str, asyncio.Lock] = {}
        self._numbers = itertools.count(1)
        self._leaving: set[asyncio.Task[None]] = set()
        self._begun: asyncio.Task[None] | None = None

    @property
    def ready(self) -> bool:
        """Whether what was there at the start has been loaded, or has failed."""
        return self._begun is not None and self._begun.done()

    def start(self) -> asyncio.Task[None]:
        """Load every model of the folder; failures are in the log and in the index."""
        self._begun = asyncio.ensure_future(self._load_all())
        return self._begun

    async def _load_all(self) -> None:
        loads = (self.load(name, None) for name in self._names())
        for outcome in await asyncio.gather(*loads, return_exceptions=True):
            if isinstance(outcome, BaseException):
                _log.error("%s", outcome)

    async def load(self, name: str, config: str | None) -> None:
        """Serve what the folder has of `name` now, in place of what is served. Raises UserError."""
        async with self._busy.setdefault(name, asyncio.Lock()):
            before = self._served(name)
            new: list[ServedModel] = []
            version = ""
            try:
                for version in self._choose(name, config):
                    self._states[name, version] = _State("LOADING")
                    model = self._open(name, version)
                    await self._host.bring(model)
                    new.append(model)
            except Exception as error:
                reason = error.what if isinstance(error, UserError) else str(error)
                for model in new:
                    self._retire(model)
                self._fail(name, version, before, reason)
                raise UserError(f"failed to load '{name}', {reason}") from error
            for model in before:
                self._retire(model)
            kept = {model.version for model in new}
            for known in [key for key in self._states if key[0] == name and key[1] not in kept]:
                self._states[known] = _State("UNAVAILABLE", "unloaded")
            for version in kept:
                self._states[name, version] = _State("READY")

    async def unload(self, name: str) -> None:
        """Serve `name` no more; requests that have begun end as they should. Raises UserError for a
        model that is not there."""
        async with self._busy.setdefault(name, asyncio.Lock()):
            models = self._served(name)
            if not models and not any(known == name for known, _ in self._states):
                raise UserError(f"failed to unload '{name}', it is not loaded")
            for model in models:
                self._retire(model)
                self._states[name, model.version] = _State("UNAVAILABLE", "unloaded")

    def index(self, *, ready: bool) -> list[dict[str, str]]:
        """Name, version, state and reason of every version, also of those not loaded."""
        found = {(m.name, m.version): _State("READY") for m in self._host.catalogue.models.values()}
        if not ready:
            for name in self._names():
                for version in self._versions(name):
                    found.setdefault((name, version), _State("UNAVAILABLE"))
            for key, state in self._states.items():
                if state.reason or state.state == "LOADING":
                    served = key in found and found[key].state == "READY"
                    found[key] = _State("READY", state.reason) if served else state
        return [
            {"name": name, "version": version, "state": state.state, "reason": state.reason}
            for (name, version), state in sorted(found.items())
        ]

    # --- the folder

    def _names(self) -> list[str]:
        if self._root is None:
            return []
        try:
            return sorted(folder.name for folder in self._root.iterdir() if folder.is_dir())
        except OSError as error:
            raise UserError(f"cannot be read: {error.strerror}", where=str(self._root)) from error

    def _versions(self, name: str) -> list[str]:
        """The versions of a model, ascending."""
        if self._root is None:
            raise UserError("there is no model repository; see --model-repository")
        if name in ("", ".", "..") or "/" in name or "\0" in name:
            return []  # it would be a folder elsewhere
        try:
            numbers = [
                int(folder.name)
                for folder in (self._root / name).iterdir()
                if folder.name.isdecimal()
                and len(folder.name) <= _VERSION_DIGITS
                and (folder / MANIFEST).exists()
            ]
        except OSError:
            return []
        return [str(number) for number in sorted(numbers)]

    def _choose(self, name: str, config: str | None) -> list[str]:
        versions = self._versions(name)
        if not versions:
            raise UserError(f"no version of it is in {self._root}")
        try:
            policy = msgspec.json.decode(config or "{}", type=_Config).version_policy
        except msgspec.MsgspecError as error:
            raise UserError(f"its config is not valid: {error}") from error
        if policy.specific is not None:
            chosen = [str(number) for number in policy.specific.versions]
            missing = [version for version in chosen if version not in versions]
            if missing or not chosen:
                raise UserError(f"versions {missing} are not in {self._root}")
            return chosen[:_VERSIONS_MAX]
        if policy.all is not None:
            return versions[-_VERSIONS_MAX:]
        count = policy.latest.num_versions if policy.latest else 1
        return versions[-max(1, min(count, _VERSIONS_MAX)) :]

    def _open(self, name: str, version: str) -> ServedModel:
        if self._root is None:
            raise UserError("there is no model repository; see --model-repository")
        folder = self._root / name / version
        users = tuple(users_of(self._host.catalogue.tenants, name))
        if not users:
            raise UserError("no tenant may call it")
        number = ModelId(f"{name}:{version}#{next(self._numbers)}")
        return open_model(number, name, folder, users, version)

    # --- what is served

    def _served(self, name: str) -> list[ServedModel]:
        return [m for m in self._host.catalogue.models.values() if m.name == name]

    def _retire(self, model: ServedModel) -> None:
        """Serve `model` to nobody new from now on, and let it go in the background: its last
        requests may take a while."""
        if task := begin(self._host.retire(model)):
            self._leaving.add(task)
            task.add_done_callback(self._leaving.discard)

    def _fail(self, name: str, version: str, before: list[ServedModel], reason: str) -> None:
        for known in [key for key in self._states if key[0] == name]:
            if self._states[known].state == "LOADING":
                del self._states[known]
        if version:
            self._states[name, version] = _State("UNAVAILABLE", reason)
        for model in before:
            self._states[name, model.version] = _State("READY", reason)


def users_of(tenants: dict[TenantId, TenantSection], name: str) -> Iterator[TenantId]:
    """Who may call a model of the repository: those that name it, or nothing at all."""
    for tenant, section in tenants.items():
        if name in section.models or not (section.models or section.bundle):
            yield tenant
