"""What was measured: a victim's slowdown beside others, and the machine that they shared."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from tenantdl.predict.footprint import Footprint


class Room(NamedTuple):
    """What is shared: memory bandwidth in bytes/ns, all last-level caches together in bytes, and
    what one core gets of the bandwidth when nobody else wants any."""

    cores: int
    bandwidth: float
    cache_bytes: float
    core_bandwidth: float


class Party(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A variant of a model on some cores, a run of which takes `alone_ns` undisturbed. `beside`:
    the share of its cores that are in cache domains of the victim's. `counted`: accesses to and
    misses of the last-level cache by hardware counters, bytes/ns, where there are any."""

    model: str
    variant: int
    cores: int
    alone_ns: float
    footprint: Footprint
    beside: float = 1.0
    counted: tuple[float, float] | None = None

    @property
    def stream(self) -> float:
        """Bytes/ns from memory whatever the caches hold."""
        return self.footprint.stream_bytes / self.alone_ns

    @property
    def reuse(self) -> float:
        """Bytes/ns that the shared cache serves while it can."""
        return self.footprint.reuse_bytes / self.alone_ns

    @property
    def shared(self) -> float:
        """Working set in the shared caches, bytes."""
        return self.footprint.shared_bytes * self.cores


class Sample(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`slowdown`: of `victim` beside `others`, over alone, of a whole run. `before`: what ran last
    on its cores (cold caches), None: the victim itself. `mix`: what ran together, whatever the
    variants and cores: samples of one mix are kept on one side of a split. `counters`: accesses to
    and misses of the shared caches by all, bytes/ns, where they could be read."""

    mix: str
    victim: Party
    others: tuple[Party, ...]
    slowdown: float
    before: Party | None = None
    counters: tuple[float, float] | None = None

    def models(self) -> frozenset[str]:
        """Everybody in it."""
        before = () if self.before is None else (self.before.model,)
        return frozenset((self.victim.model, *before, *(other.model for other in self.others)))


def mix_of(victim: str, others: Sequence[str]) -> str:
    """The name of a mix."""
    return f"{victim}|{'+'.join(sorted(others))}"
