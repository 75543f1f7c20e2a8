"""Core groups as bit masks: bit i is the i-th lane of the machine, with the cores that it owns.

A mask is a set with a total order and cheap union, so that "disjoint" is one operation. Groups are
picked close together: the cores that a request had, then as few cache domains as possible.
"""

from __future__ import annotations

from functools import lru_cache

from tenantdl.ids import CoreId
from tenantdl.sched.config import LaneSpec

_MANY = 1_000_000


class CoreMap:
    """The machine's lanes by number, and the domains of cores that share a last-level cache."""

    def __init__(
        self, lanes: tuple[LaneSpec, ...], domains: tuple[tuple[CoreId, ...], ...]
    ) -> None:
        self._lanes = lanes
        self._sizes = [len(lane.cores) for lane in lanes]
        # Lanes of equal size (nearly always) are counted, not summed.
        self._grain = self._sizes[0] if len(set(self._sizes)) == 1 else 0
        self.everything = (1 << len(lanes)) - 1
        at = {core: 1 << bit for bit, lane in enumerate(lanes) for core in lane.cores}
        masks = [sum({at[core] for core in domain if core in at}) for domain in domains]
        self.domains = tuple(mask for mask in masks if mask) or (self.everything,)
        self.cores = lru_cache(maxsize=4096)(self._cores)

    def size(self, mask: int) -> int:
        """Number of cores in `mask`."""
        if self._grain:
            return mask.bit_count() * self._grain
        return sum(size for bit, size in enumerate(self._sizes) if mask >> bit & 1)

    def _cores(self, mask: int) -> tuple[CoreId, ...]:
        found: list[CoreId] = []
        while mask:
            low = mask & -mask
            found += self._lanes[low.bit_length() - 1].cores
            mask ^= low
        return tuple(found)

    def trim(self, mask: int, count: int, keep: int = 0) -> int:
        """The lowest lanes of `mask` with at least `count` cores (all of it if it has fewer), and
        those of `keep` first."""
        group = mask & keep
        rest = mask & ~keep
        missing = count - self.size(group)
        if missing <= 0:
            return group
        if missing >= self.size(rest):
            return mask
        # The shortest run of low bits that is enough, by halves.
        short, enough = 0, rest.bit_length()
        while enough - short > 1:
            middle = (short + enough) // 2
            if self.size(rest & ((1 << middle) - 1)) < missing:
                short = middle
            else:
                enough = middle
        return group | rest & ((1 << enough) - 1)

    def pick(self, free: int, count: int, near: int = 0) -> int:
        """A group of `count` cores (or a few more, where lanes are larger) out of `free`, 0 if
        there are not so many. `near`: cores to prefer, such as those that a request had."""
        if self.size(free) < count:
            return 0
        group = self.trim(free & near, count)
        missing = count - self.size(group)
        if missing <= 0 or len(self.domains) == 1:
            return self.trim(free, count, keep=group)
        rest = free & ~group
        # Where it has cores already; else the fullest domain that has enough, else the emptiest.
        ranked: list[tuple[int, int]] = []
        for place, domain in enumerate(self.domains):
            if inside := rest & domain:
                has = self.size(inside)
                appeal = has if has >= missing else _MANY - has
                shared = (domain & group).bit_count() if group else 0
                ranked.append((appeal - 2 * _MANY * shared, place))
        ranked.sort()
        for _, place in ranked:
            inside = rest & self.domains[place]
            has = self.size(inside)
            if has >= missing:
                return group | self.trim(inside, missing)
            group |= inside
            missing -= has
        return group
