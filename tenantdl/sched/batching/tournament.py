"""The best of n numbered keys: O(log n) to change one, O(1) to look. Ties go to the lowest number.

A heap would need an entry for every change or a map of places; here each key has its place. Keys
are attributes of objects and not elements of a list: compiled, the former are plain machine
integers, the latter are made and taken apart at every access.
"""

from __future__ import annotations

from typing import Final

NEVER: Final = 1 << 61


class _Entrant:
    """A number and its key."""

    def __init__(self, number: int) -> None:
        self.number: int = number
        self.key: int = NEVER


class _Match:
    """The better of two, `won`, goes on to match `up`, as its `second` or its first."""

    def __init__(self, first: _Entrant, second: _Entrant) -> None:
        self.first: _Entrant = first
        self.second: _Entrant = second
        self.won: _Entrant = first
        self.up: _Match | None = None
        self.as_second: bool = False


class Tournament:
    """Keys of 0 … n−1, all NEVER at first; `best` is the number with the smallest key."""

    def __init__(self, count: int) -> None:
        leaves = 2
        while leaves < count:
            leaves *= 2
        self.count: int = count
        self._entrants: list[_Entrant] = [_Entrant(number) for number in range(leaves)]
        pairs = range(0, leaves, 2)
        self._first_round = [_Match(self._entrants[i], self._entrants[i + 1]) for i in pairs]
        matches = self._first_round
        while len(matches) > 1:
            following = []
            for i in range(0, len(matches), 2):
                match = _Match(matches[i].won, matches[i + 1].won)
                matches[i].up = match
                matches[i + 1].up, matches[i + 1].as_second = match, True
                following.append(match)
            matches = following
        self._final: _Match = matches[0]

    @property
    def best(self) -> int:
        """The number with the smallest key."""
        return self._final.won.number

    @property
    def key(self) -> int:
        """The smallest key."""
        return self._final.won.key

    def key_of(self, number: int) -> int:
        """The key of `number`."""
        return self._entrants[number].key

    def set(self, number: int, key: int) -> None:
        """Give `number` another key."""
        entrant = self._entrants[number]
        if key == entrant.key:
            return
        entrant.key = key
        match = self._first_round[number >> 1]
        while True:
            won = match.second if match.second.key < match.first.key else match.first
            if match.won is won and won is not entrant:
                return  # it neither wins nor used to win here: nothing changes further up
            match.won = won
            up = match.up
            if up is None:
                return
            if match.as_second:
                up.second = won
            else:
                up.first = won
            match = up
