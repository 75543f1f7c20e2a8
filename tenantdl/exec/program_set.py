"""A model's programs and the memory for its requests, as the lanes' owner has them."""

from __future__ import annotations

from tenantdl.errors import UserError
from tenantdl.exec.lane_memory import Mapping, ModelLayout, Slots
from tenantdl.exec.template_wire import Load


class ProgramSet:
    """A model's programs, numbered from `base`, and the memory that they share with us."""

    def __init__(self, base: int, layout: ModelLayout) -> None:
        """Raises UserError where there is not so much memory to be had."""
        self.base = base
        self.layout = layout
        self._maps: list[Mapping] = []
        try:
            for name, nbytes in (("slots", layout.slots_bytes), ("arenas", layout.arenas_bytes)):
                self._maps.append(Mapping.create(name, nbytes))
        except OSError as error:
            self.close()
            raise UserError(
                f"{(layout.slots_bytes + layout.arenas_bytes) / 1024**2:.0f} MiB of shared memory"
                f" are not to be had ({error.strerror}): lower queue_max or arenas",
                where=layout.bundle,
            ) from error
        self.slots = Slots(layout, self._maps[0].memory)

    def load(self, *, idle: bool, fresh: bool) -> tuple[Load, list[int]]:
        """The order to load it, and the files that go along."""
        return Load(self.base, self.layout, idle, fresh), [mapping.fd for mapping in self._maps]

    def close(self) -> None:
        """Nobody will load it again."""
        for mapping in self._maps:
            mapping.close()
