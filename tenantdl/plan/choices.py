"""Which configurations a structure picks, and by how many machines it differs from a full share."""

from __future__ import annotations

import itertools
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tenantdl.plan.profile import Table, ordered, useful

TIERS_MAX = 4
CONFIGURATIONS_MAX = 24
_MANY = 7  # more configurations than this: structures of one tier fewer
_VERY_MANY = 14
_ABOVE_LAST = (0, 1, -1, -2, -3)  # machines more than fill, for the tier above the last
_LAST = (0, 1, 2, 3)  # and for a tier that is alone


class Choices(NamedTuple):
    """[row, place] `tiers`, right-aligned, where the count of configurations stands for none;
    `offset`, full machines beside those that the share fills. [row] `absorbs`: these last."""

    tiers: NDArray[np.intp]
    offset: NDArray[np.intp]
    absorbs: NDArray[np.bool_]


def thinned(table: Table) -> Table:
    """At most CONFIGURATIONS_MAX entries: the best by ratio and the fastest."""
    entries = ordered(table)
    if len(entries) <= CONFIGURATIONS_MAX:
        return entries
    entries = useful(entries)
    kept = set(entries[: CONFIGURATIONS_MAX // 2])
    fastest = sorted(entries, key=lambda entry: (entry.duration_s, -entry.ratio))
    others = (entry for entry in fastest if entry not in kept)
    kept.update(itertools.islice(others, CONFIGURATIONS_MAX - len(kept)))
    return ordered(kept)


@lru_cache(maxsize=64)
def choices(count: int) -> Choices:
    """All choices out of `count` configurations in descending ratio."""
    tiers: list[tuple[int, ...]] = []
    offsets: list[tuple[int, ...]] = []
    absorbs: list[bool] = []
    most = TIERS_MAX - (count > _MANY) - (count > _VERY_MANY)
    for size in range(1, most + 1):
        front = TIERS_MAX - size
        for subset in itertools.combinations(range(count), size):
            closing, absorbing = _offsets(size)
            for offset in (*closing, *absorbing):
                tiers.append((count,) * front + subset)
                offsets.append((0,) * front + offset)
            absorbs += [False] * len(closing) + [True] * len(absorbing)
    order = np.argsort(absorbs, kind="stable")  # absorbing ones last
    return Choices(np.array(tiers)[order], np.array(offsets)[order], np.array(absorbs)[order])


def _offsets(size: int) -> tuple[list[tuple[int, ...]], list[tuple[int, ...]]]:
    """Offsets by place of closing and of absorbing structures with `size` tiers. Absorbing ones
    count the machines of the last two tiers by what those need."""
    if size == 1:
        return [(more,) for more in _LAST], []
    front = (0,) * (size - 2)
    closing = [(*front, more, 0) for more in _ABOVE_LAST] + [(*front, 0, 1)]
    absorbing = [(*front, 0, 0)]
    for place in range(size - 2):
        fewer = (*front[:place], -1, *front[place + 1 :], 0, 0)
        closing.append(fewer)
        absorbing.append(fewer)
    return closing, absorbing
