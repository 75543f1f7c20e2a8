"""Tables of slowdowns follow what blocks really take: online, in integers, and carefully.

For each variant the ratio of a block's time to what it takes undisturbed is averaged at each
pressure. Costs drift with the machine and are tracked elsewhere (`costs`); so what counts here is
the ratio under pressure over the ratio without: a slow machine moves both. Nothing changes before
both are known well and differ from the table by more than noise does. A table that was far off is
an alarm: the machine, or its tenants, are not those that were profiled.
"""

from __future__ import annotations

UNDISTURBED = 1000
# Weight of a new ratio once there are many.
_WEIGHT = 32
_SEEN_MIN = 64
# What a table may be off by (1/1000) before it is corrected, and before that is an alarm.
_WRONG, _ALARM = 100, 250
# Single blocks are stalled by what has nothing to do with neighbours.
_OUTLIER = 3


class Correction:
    """Of one variant's table. `alarmed`: whether what was corrected last had been far off."""

    def __init__(self) -> None:
        self.alarmed = False
        self._ratios: list[int] = []
        self._seen: list[int] = []

    def observe(
        self, table: tuple[int, ...], pressure: int, undisturbed: int, elapsed: int
    ) -> tuple[int, ...] | None:
        """A block that takes `undisturbed` took `elapsed` at `pressure` (1/1000): a better table
        than `table`, or None while that is right as far as one knows."""
        steps = len(table) - 1
        if steps < 1:
            return None
        if len(self._ratios) != len(table):
            self._ratios, self._seen = list(table), [0] * len(table)
        level = min(steps, (max(0, pressure) * steps + UNDISTURBED // 2) // UNDISTURBED)
        ratio = elapsed * UNDISTURBED // max(1, undisturbed)
        if ratio > _OUTLIER * table[level]:
            return None
        seen = self._seen[level] = min(self._seen[level] + 1, 2 * _SEEN_MIN)
        self._ratios[level] += (ratio - self._ratios[level]) // min(seen, _WEIGHT)
        if min(seen, self._seen[0]) < _SEEN_MIN or not level:
            return None
        felt = max(UNDISTURBED, self._ratios[level] * UNDISTURBED // max(1, self._ratios[0]))
        wrong = abs(felt - table[level]) * UNDISTURBED // table[level]
        if wrong <= _WRONG:
            return None
        self.alarmed = wrong > _ALARM
        self._seen[level] = 0
        return _bent(table, level, felt)


def _bent(table: tuple[int, ...], level: int, felt: int) -> tuple[int, ...]:
    """`table` with `felt` at a level; more pressure never means less of a slowdown."""
    lower = [min(value, felt) for value in table[:level]]
    higher = [max(value, felt) for value in table[level + 1 :]]
    return (*lower, felt, *higher)
