"""Segment costs, tracked online, and where blocks end.

Fixed service times mislead: a virtual machine drifts by 1.7× within minutes. Every finished block
moves the costs of its segments towards what was measured, in integers, so that a replay computes
the same numbers. Costs in ns.
"""

from __future__ import annotations

from tenantdl.units import Ns

# Weight of a new measurement: 1/2 at first (compile-time guesses are rough), 1/8 in the long run.
_WEIGHT_FIRST, _WEIGHT_LAST = 2, 8
# A block stretched by more than this was stalled by something else than its own work.
_OUTLIER = 8
# The grid is cut anew when the whole model got this much (1/5) faster or slower.
_DRIFT = 5


class SegmentCosts:
    """The costs of one plan's segments, and its grid of block ends."""

    def __init__(self, costs: tuple[int, ...], block_target: Ns) -> None:
        self._costs = [max(1, cost) for cost in costs]
        self._seen = [0] * len(costs)
        self._target = block_target
        self._remaining: list[int] = []
        self._grid: tuple[int, ...] = ()
        self._grid_total = 0
        self._refresh()

    @property
    def count(self) -> int:
        """Number of segments."""
        return len(self._costs)

    def remaining(self, progress: int) -> Ns:
        """Cost of segments [progress, count)."""
        return Ns(self._remaining[progress])

    def between(self, begin: int, end: int) -> Ns:
        """Cost of segments [begin, end)."""
        return Ns(self._remaining[begin] - self._remaining[end])

    def observe(self, begin: int, end: int, elapsed: Ns) -> None:
        """Segments [begin, end) took `elapsed`: scale each towards it."""
        expected = max(1, self.between(begin, end))
        measured = max(1, min(elapsed, _OUTLIER * expected))
        for segment in range(begin, end):
            weight = min(_WEIGHT_FIRST + self._seen[segment], _WEIGHT_LAST)
            self._seen[segment] = min(self._seen[segment] + 1, _WEIGHT_LAST)
            cost = self._costs[segment]
            self._costs[segment] = max(1, cost + (cost * measured // expected - cost) // weight)
        self._refresh()

    def block_ends(self, begin: int, blocks_max: int) -> tuple[int, ...]:
        """Where the next blocks from `begin` end, at most `blocks_max` of them."""
        return tuple(end for end in self._grid if end > begin)[:blocks_max]

    def _refresh(self) -> None:
        remaining = [0]
        for cost in reversed(self._costs):
            remaining.append(remaining[-1] + cost)
        remaining.reverse()
        self._remaining = remaining
        if abs(remaining[0] - self._grid_total) * _DRIFT > self._grid_total:
            self._grid_total = remaining[0]
            self._grid = self._cut()

    def _cut(self) -> tuple[int, ...]:
        """Merge segments greedily: a block ends where it is nearest to the target."""
        ends: list[int] = []
        length = 0
        for segment, cost in enumerate(self._costs):
            if length and length + cost // 2 > self._target:
                ends.append(segment)
                length = 0
            length += cost
        # A stub at the end only costs a boundary.
        if ends and 2 * length < self._target:
            ends.pop()
        return (*ends, len(self._costs))
