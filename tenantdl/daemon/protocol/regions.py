"""System shared memory: regions that clients have registered, to hand over tensors without a copy
through a socket. Names belong to whoever registered them; sizes are checked before anything is
mapped.
"""

from __future__ import annotations

import mmap
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tenantdl.daemon.protocol.access import Caller
from tenantdl.daemon.protocol.refusals import ProtocolError
from tenantdl.ids import TenantId

_FOLDER = Path("/dev/shm")
_KEY = re.compile(r"/?[A-Za-z0-9._-]{1,200}")
_REGIONS_MAX = 1024


@dataclass(frozen=True, slots=True)
class _Region:
    key: str
    offset: int
    byte_size: int
    fd: int
    memory: memoryview

    def whole(self) -> bool:
        """Whether the client has not shortened it meanwhile: to touch what is gone is deadly."""
        return os.fstat(self.fd).st_size >= self.offset + self.byte_size

    def close(self) -> None:
        """Nobody will map it again."""
        os.close(self.fd)


class Regions:
    """All regions, by owner and name."""

    def __init__(self) -> None:
        self._regions: dict[tuple[frozenset[TenantId], str], _Region] = {}

    def register(self, caller: Caller, name: str, key: str, offset: int, byte_size: int) -> None:
        """Map bytes [offset, offset + byte_size) of the POSIX shared memory `key`. Raises
        ProtocolError."""
        owned = (caller.tenants, name)
        if owned in self._regions:
            raise ProtocolError(400, f"shared memory region '{name}' already in manager")
        if len(self._regions) >= _REGIONS_MAX:
            raise ProtocolError(429, f"more than {_REGIONS_MAX} shared memory regions")
        if not _KEY.fullmatch(key) or offset < 0 or byte_size <= 0:
            raise ProtocolError(400, f"Unable to open shared memory region: '{key}'")
        try:
            fd = os.open(_FOLDER / key.removeprefix("/"), os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError as error:
            raise ProtocolError(400, f"Unable to open shared memory region: '{key}'") from error
        region: _Region | None = None
        try:
            if os.fstat(fd).st_size < offset + byte_size:
                raise ProtocolError(
                    400,
                    f"failed to register shared memory region '{name}': invalid args: it has not "
                    f"{byte_size} bytes from {offset} on",
                )
            # Mappings begin at pages; the client's offset need not.
            start = offset // mmap.ALLOCATIONGRANULARITY * mmap.ALLOCATIONGRANULARITY
            mapping = mmap.mmap(fd, offset - start + byte_size, offset=start)
            memory = memoryview(mapping)[offset - start :]
            region = self._regions[owned] = _Region(key, offset, byte_size, fd, memory)
        except (OSError, ValueError) as error:
            raise ProtocolError(400, f"Unable to map shared memory region: '{key}'") from error
        finally:
            if region is None:
                os.close(fd)

    def unregister(self, caller: Caller, name: str = "") -> None:
        """Forget region `name`, or all of the caller's; unknown ones are ignored."""
        if name:
            mine = [(caller.tenants, name)]
        else:
            mine = [owned for owned in self._regions if owned[0] == caller.tenants]
        for owned in mine:
            if region := self._regions.pop(owned, None):
                region.close()

    def status(self, caller: Caller, name: str = "") -> list[dict[str, Any]]:
        """The caller's regions, or the one of that name. Raises ProtocolError (404)."""
        found = [
            {"name": n, "key": r.key, "offset": r.offset, "byte_size": r.byte_size}
            for (owner, n), r in self._regions.items()
            if owner == caller.tenants and name in ("", n)
        ]
        if name and not found:
            raise ProtocolError(404, f"Unable to find system shared memory region: '{name}'")
        return found

    def slice(self, caller: Caller, name: object, offset: object, byte_size: object) -> memoryview:
        """Bytes [offset, offset + byte_size) of region `name`. Raises ProtocolError."""
        region = self._regions.get((caller.tenants, str(name)))
        if region is None:
            raise ProtocolError(400, f"Unable to find shared memory region: '{name}'")
        if not (isinstance(offset, int) and isinstance(byte_size, int)):
            raise ProtocolError(400, f"shared memory region '{name}': offset and size are numbers")
        if offset < 0 or byte_size < 0 or offset + byte_size > region.byte_size:
            raise ProtocolError(
                400,
                f"Invalid offset + byte size for shared memory region: '{name}' has "
                f"{region.byte_size} bytes",
            )
        if not region.whole():
            raise ProtocolError(400, f"shared memory region '{name}' has been shortened")
        return region.memory[offset : offset + byte_size]
