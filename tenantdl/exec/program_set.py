"""A model's programs and the memory for its requests, as the lanes' owner has them."""

from __future__ import annotations

from tenantdl.exec.lane_memory import Mapping, ModelLayout, Slots
from tenantdl.exec.template_wire import Load


class ProgramSet:
    """A model's programs, numbered from `base`, and the memory that they share with us."""

    def __init__(self, base: int, layout: ModelLayout) -> None:
        self.base = base
        self.layout = layout
        self._maps = [
            Mapping.create("slots", layout.slots_bytes),
            Mapping.create("arenas", layout.arenas_bytes),
        ]
        self.slots = Slots(layout, self._maps[0].memory)

    def load(self, *, idle: bool) -> tuple[Load, list[int]]:
        """The order to load it, and the files that go along."""
        return Load(self.base, self.layout, idle), [mapping.fd for mapping in self._maps]

    def close(self) -> None:
        """Nobody will load it again."""
        for mapping in self._maps:
            mapping.close()
