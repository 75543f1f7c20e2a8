"""The best of n numbered keys: O(log n) to change one, O(1) to look. Ties go to the lowest number.

A heap would need an entry for every change or a map of places; here place i is fixed.
"""

from __future__ import annotations

from typing import Final

NEVER: Final = 1 << 61


class Tournament:
    """Keys of 0 … n−1, all NEVER at first; `best` is the number with the smallest key."""

    def __init__(self, count: int) -> None:
        leaves = 1
        while leaves < count:
            leaves *= 2
        self._leaves: int = leaves
        self.keys: list[int] = [NEVER] * leaves
        # Node i has children 2i and 2i+1; leaf j is node leaves + j; each names its winner.
        self._winner: list[int] = [0] * leaves + list(range(leaves))
        for node in range(leaves - 1, 0, -1):
            self._winner[node] = self._winner[2 * node]

    @property
    def best(self) -> int:
        """The number with the smallest key."""
        return self._winner[1]

    @property
    def key(self) -> int:
        """The smallest key."""
        return self.keys[self._winner[1]]

    def set(self, number: int, key: int) -> None:
        """Give `number` another key."""
        keys, winner = self.keys, self._winner
        old = keys[number]
        if key == old:
            return
        keys[number] = key
        node = (self._leaves + number) >> 1
        while node:
            left, right = winner[2 * node], winner[2 * node + 1]
            won = right if keys[right] < keys[left] else left
            if winner[node] == won and won != number:
                return  # it neither wins nor used to win here: nothing changes further up
            winner[node] = won
            node >>= 1
