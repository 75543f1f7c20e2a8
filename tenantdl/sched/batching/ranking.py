"""Which waiting request has the highest score now: by looking at all, or by convex hulls.

Both give the same answer; ties go to the request that came first. With x = e^(rate·(t − origin))
each score is a line α·x + β, whose α and β change only when the time left passes an edge of the
run-time distribution. The highest of many lines is their upper hull (Orloj §5). Lines live in
blocks of about √n, each with a hull that is rebuilt when a line of it has changed; a look-up is a
binary search a block. x is counted from an origin that moves before it overflows.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from heapq import heappop, heappush
from math import exp
from typing import Protocol

from tenantdl.sched.batching.score import ScoreTable

BLOCK = 64
# e^30: small enough to keep the digits of α and β, large enough to move the origin rarely.
_EXPONENT_MAX = 30.0


class Ranking(Protocol):
    """Requests by number; all their tables share one delay."""

    def add(self, number: int, deadline: int, table: ScoreTable) -> None:
        """A request that was not inside."""

    def remove(self, number: int) -> None:
        """Take one out. Raises KeyError if it is not inside."""

    def best(self, now: int) -> int:
        """The one with the highest score at `now`, which never goes back; −1 if there is none."""


class Argmax:
    """Looks at all: O(n)."""

    def __init__(self) -> None:
        self._entries: dict[int, tuple[int, ScoreTable]] = {}

    def add(self, number: int, deadline: int, table: ScoreTable) -> None:
        """A request that was not inside."""
        self._entries[number] = (deadline, table)

    def remove(self, number: int) -> None:
        """Take one out."""
        del self._entries[number]

    def best(self, now: int) -> int:
        """The one with the highest score; −1 if there is none."""
        best, highest = -1, -1.0
        for number, (deadline, table) in self._entries.items():
            score = table.score(deadline, now)
            if score > highest or (score == highest and number < best):
                best, highest = number, score
        return best


class _Block:
    def __init__(self) -> None:
        self.numbers: list[int] = []
        self.dirty = True
        # Upper hull by rising slope; line i is the highest from crossings[i−1] to crossings[i].
        self.hull: list[int] = []
        self.crossings: list[float] = []


class Hull:
    """Looks at the upper hulls of blocks."""

    def __init__(self) -> None:
        self._entries: dict[int, tuple[int, ScoreTable]] = {}
        self._lines: dict[int, tuple[float, float]] = {}
        self._home: dict[int, _Block] = {}
        self._blocks: list[_Block] = []
        # (when the line changes, request)
        self._changes: list[tuple[int, int]] = []
        self._fresh: list[int] = []
        self._origin = 0

    def add(self, number: int, deadline: int, table: ScoreTable) -> None:
        """A request that was not inside."""
        self._entries[number] = (deadline, table)
        if not self._blocks or len(self._blocks[-1].numbers) >= BLOCK:
            self._blocks.append(_Block())
        self._home[number] = self._blocks[-1]
        self._blocks[-1].numbers.append(number)
        self._fresh.append(number)

    def remove(self, number: int) -> None:
        """Take one out."""
        del self._entries[number]
        self._lines.pop(number, None)
        block = self._home.pop(number)
        block.numbers.remove(number)
        block.dirty = True
        if not block.numbers:
            self._blocks.remove(block)
        elif len(self._blocks) > 4 + 2 * len(self._entries) // BLOCK:
            self._pack()

    def best(self, now: int) -> int:
        """The one with the highest score; −1 if there is none."""
        self._renew(now)
        best, highest = -1, -1.0
        for block in self._blocks:
            if block.dirty:
                _rebuild(block, self._lines.__getitem__)
            x = exp(self._rate() * (now - self._origin))
            place = bisect_left(block.crossings, x)
            # Its neighbours too: where lines cross, rounding may have chosen either.
            for number in block.hull[max(place - 1, 0) : place + 2]:
                deadline, table = self._entries[number]
                score = table.score(deadline, now)
                if score > highest or (score == highest and number < best):
                    best, highest = number, score
        return best

    def _rate(self) -> float:
        return next(iter(self._entries.values()))[1].rate

    def _renew(self, now: int) -> None:
        """Bring all lines to `now`."""
        if self._entries and self._rate() * (now - self._origin) > _EXPONENT_MAX:
            self._origin = now
            self._changes.clear()
            self._fresh = list(self._entries)
        while self._changes and self._changes[0][0] < now:
            self._fresh.append(heappop(self._changes)[1])
        for number in self._fresh:
            if number in self._entries:
                deadline, table = self._entries[number]
                alpha, beta, until = table.line(deadline, now, self._origin)
                self._home[number].dirty = True
                self._lines[number] = (alpha, beta)
                heappush(self._changes, (until, number))
        self._fresh = []

    def _pack(self) -> None:
        """Put the requests of many sparse blocks into few full ones."""
        numbers = [number for block in self._blocks for number in block.numbers]
        self._blocks = []
        for begin in range(0, len(numbers), BLOCK):
            block = _Block()
            block.numbers = numbers[begin : begin + BLOCK]
            self._blocks.append(block)
            self._home.update(dict.fromkeys(block.numbers, block))


def _rebuild(block: _Block, line: Callable[[int], tuple[float, float]]) -> None:
    """The upper hull for x > 0: lines by rising slope, those that are nowhere highest left out."""
    hull: list[tuple[float, float, int]] = []
    crossings: list[float] = []
    for (a, b), number in sorted((line(n), -n) for n in block.numbers):
        # Of parallel lines the last is the highest; of equal ones, that of the first request.
        while hull:
            a0, b0, _ = hull[-1]
            if a == a0:
                gone = True
            else:
                crossing = (b0 - b) / (a - a0)
                gone = crossing < 0 if not crossings else crossing < crossings[-1]
            if not gone:
                crossings.append(crossing)
                break
            hull.pop()
            if crossings:
                crossings.pop()
        hull.append((a, b, -number))
    block.hull = [number for _, _, number in hull]
    block.crossings = crossings
    block.dirty = False


RANKINGS: dict[str, Callable[[], Ranking]] = {"argmax": Argmax, "hull": Hull}
