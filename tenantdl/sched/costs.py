"""What segments cost on so many cores in one variant: the one source of latencies for all policies.

Costs are tracked online. Fixed service times mislead: a virtual machine drifts by 1.7× within
minutes. Every finished block moves the costs of its segments towards what was measured, in
integers, so that a replay computes the same numbers. Costs in ns.
"""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate

from tenantdl.sched.config import PlanSpec
from tenantdl.sched.correction import Correction
from tenantdl.units import Ns

UNDISTURBED = 1000  # a slowdown of 1, in 1/1000
# Weight of a new measurement: 1/2 at first (compile-time guesses are rough), 1/8 in the long run.
_WEIGHT_FIRST, _WEIGHT_LAST = 2, 8
# A block stretched by more than this was stalled by something else than its own work.
_OUTLIER = 8
# After so many blocks the fastest way to run a plan is looked for anew.
_FASTEST_EVERY = 16
# Tables that were never observed follow the others when those have drifted by so much (1/8) more.
_FOLLOW = 8
# The grid is cut anew when the whole model got this much (1/5) faster or slower.
_DRIFT = 5


class SegmentCosts:
    """The costs of one plan's segments, and its grid of block ends. `left[s]`: of segments [s,
    count)."""

    def __init__(self, costs: tuple[int, ...], block_target: Ns) -> None:
        self._costs = [max(1, cost) for cost in costs]
        self._guess = tuple(self._costs)
        self._followed = UNDISTURBED
        self.observed = 0
        self._seen = [0] * len(costs)
        self._target = block_target
        self.left = [0] * (len(costs) + 1)
        self._grid: tuple[int, ...] = ()
        self._grid_total = 0
        self._refresh(len(costs))

    @property
    def count(self) -> int:
        """Number of segments."""
        return len(self._costs)

    def remaining(self, progress: int) -> Ns:
        """Cost of segments [progress, count)."""
        return Ns(self.left[progress])

    def between(self, begin: int, end: int) -> Ns:
        """Cost of segments [begin, end)."""
        return Ns(self.left[begin] - self.left[end])

    def observe(self, begin: int, end: int, elapsed: Ns, slowdown: int = UNDISTURBED) -> None:
        """Segments [begin, end) took `elapsed`, where a `slowdown` (in 1/1000) was expected: scale
        each towards it."""
        self.observed += 1
        expected = max(1, self.between(begin, end) * slowdown // UNDISTURBED)
        measured = max(1, min(elapsed, _OUTLIER * expected))
        for segment in range(begin, end):
            weight = min(_WEIGHT_FIRST + self._seen[segment], _WEIGHT_LAST)
            self._seen[segment] = min(self._seen[segment] + 1, _WEIGHT_LAST)
            cost = self._costs[segment]
            self._costs[segment] = max(1, cost + (cost * measured // expected - cost) // weight)
        self._refresh(end)

    def drift(self) -> int:
        """How much longer the plan takes than was first guessed, in 1/1000."""
        return self.left[0] * UNDISTURBED // sum(self._guess)

    def follow(self, drift: int) -> None:
        """Others have drifted so far from their guesses: so has this one, most likely."""
        if abs(drift - self._followed) * _FOLLOW > self._followed:
            self._followed = drift
            self._costs = [max(1, guess * drift // UNDISTURBED) for guess in self._guess]
            self._refresh(len(self._costs))

    def block_ends(self, begin: int, blocks_max: int) -> tuple[int, ...]:
        """Where the next blocks from `begin` end, at most `blocks_max` of them."""
        first = bisect_right(self._grid, begin)
        return self._grid[first : first + blocks_max]

    def _refresh(self, end: int) -> None:
        """The costs of segments [0, end) have changed."""
        left = self.left
        remaining = left[end]
        for segment in range(end - 1, -1, -1):
            remaining += self._costs[segment]
            left[segment] = remaining
        if abs(remaining - self._grid_total) * _DRIFT > self._grid_total:
            self._grid_total = remaining
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


class PlanCosts:
    """Segment × variant × cores → Ns for one plan of a model, with slowdowns under pressure.

    `counts`: the core counts that have costs of their own, ascending; any other number of cores
    costs what the next lower one does. Pressures are in 1/1000 of what a machine full of the most
    demanding variants exerts.
    """

    def __init__(self, spec: PlanSpec, block_target: Ns, cores_max: int) -> None:
        known = spec.variants[0].cores
        self.counts = tuple(c for c in known if c <= cores_max) or known[:1]
        self.variants = len(spec.variants)
        self._slowdowns = [variant.slowdowns for variant in spec.variants]
        self._corrections = [Correction() for _ in spec.variants]
        # How often a table was found far off.
        self.alarms = 0
        # Slowdowns of all variants at the pressures that were asked for.
        self._known: dict[int, tuple[int, ...]] = {}
        self._index = [max(0, bisect_right(self.counts, c) - 1) for c in range(cores_max + 1)]
        self._tables = [
            [SegmentCosts(costs, block_target) for costs in variant.costs[: len(self.counts)]]
            for variant in spec.variants
        ]
        self._fastest = self._find_fastest()
        self._observed = 0
        # Core time of segments [0, s) on the fewest cores, as it was said at first.
        first = spec.variants[0].costs[0]
        self._said = [0, *accumulate(cost * self.counts[0] for cost in first)]
        # Traffic follows the work that is done, not the cores that are held.
        least = [table[0].remaining(0) * self.counts[0] for table in self._tables]
        self._exerts = [
            [variant.pressure * least[v] // table.remaining(0) for table in self._tables[v]]
            for v, variant in enumerate(spec.variants)
        ]

    @property
    def count(self) -> int:
        """Number of segments."""
        return self._fastest.count

    def said(self, begin: int, end: int) -> int:
        """Core time (ns) of segments [begin, end) as the plan says, on the fewest cores, whatever
        was measured since: what a stated load is made of (`plans.core_load`)."""
        return self._said[end] - self._said[begin]

    def at(self, variant: int, cores: int) -> SegmentCosts:
        """Costs of `variant` on `cores` cores, undisturbed."""
        return self._tables[variant][self._index[cores]]

    def row(self, variant: int) -> list[SegmentCosts]:
        """Costs of `variant` on each of `counts` cores."""
        return self._tables[variant]

    def times(self, variant: int, progress: int) -> list[int]:
        """Costs of segments [progress, count) in `variant` on each of `counts` cores."""
        return [table.left[progress] for table in self._tables[variant]]

    def modest(self, cores: int, begin: int, pressure: int, sensitivity: int) -> int:
        """The variant that takes least core time on `cores` at `pressure`: its own, and what it
        costs others, who lose `sensitivity` (1/1000 of a core) for a core's full pressure."""
        if self.variants == 1:
            return 0
        place, slowdowns = self._index[cores], self._slowdowns_at(pressure)
        best, least = 0, -1
        for variant, row in enumerate(self._tables):
            burden = self._exerts[variant][place] * sensitivity // UNDISTURBED
            price = row[place].left[begin] * slowdowns[variant] * (cores * UNDISTURBED + burden)
            if price < least or least < 0:
                best, least = variant, price
        return best

    def usable(self, cores: int) -> int:
        """How many of `cores` cores there are costs for."""
        return self.counts[self._index[cores]]

    def enough(self, time: int) -> int:
        """The fewest cores that run the whole plan within `time` (ns); the most there are costs
        for, if none do."""
        for cores in self.counts:
            if self.at(0, cores).remaining(0) <= time:
                return cores
        return self.counts[-1]

    def remaining(self, progress: int) -> Ns:
        """Cost of segments [progress, count) in the fastest way there is."""
        return self._fastest.remaining(progress)

    def slowdown(self, variant: int, pressure: int) -> int:
        """By how much, in 1/1000, `variant` is slowed down at `pressure`: linear between the
        levels of its table, which are spaced evenly from 0 to 1000."""
        return self._slowdowns_at(pressure)[variant]

    def _slowdowns_at(self, pressure: int) -> tuple[int, ...]:
        pressure = min(pressure, UNDISTURBED)
        known = self._known.get(pressure)
        if known is None:
            known = tuple(self._interpolated(v, pressure) for v in range(self.variants))
            self._known[pressure] = known
        return known

    def _interpolated(self, variant: int, pressure: int) -> int:
        levels = self._slowdowns[variant]
        steps = len(levels) - 1
        if not steps:
            return levels[0]
        place = max(0, pressure) * steps
        low = min(place // UNDISTURBED, steps - 1)
        part = place - low * UNDISTURBED
        return levels[low] + (levels[low + 1] - levels[low]) * part // UNDISTURBED

    def best_variant(self, cores: int, begin: int, pressure: int) -> int:
        """The variant that would finish first on `cores` at `pressure`."""
        return min(
            range(self.variants),
            key=lambda v: self.at(v, cores).remaining(begin) * self.slowdown(v, pressure),
        )

    def exerts(self, variant: int, cores: int) -> int:
        """Pressure of `variant` on `cores`, in 1/1000 of what one core with the most demanding
        variant exerts: its speed-up counts, not its cores."""
        return self._exerts[variant][self._index[cores]]

    def learn(self, variant: int, slowdowns: tuple[int, ...]) -> None:
        """A predictor's new table of slowdowns, in 1/1000, at evenly spaced pressures."""
        self._slowdowns[variant] = slowdowns
        self._known.clear()

    def observe(
        self, variant: int, cores: int, begin: int, end: int, elapsed: Ns, pressure: int
    ) -> None:
        """Segments [begin, end) took `elapsed` so, where others exerted `pressure`."""
        slowdown, costs = self.slowdown(variant, pressure), self.at(variant, cores)
        table, alone = self._slowdowns[variant], costs.between(begin, end)
        better = self._corrections[variant].observe(table, pressure, alone, elapsed)
        costs.observe(begin, end, elapsed, slowdown)
        if better is not None:
            self.learn(variant, better)
            self.alarms += self._corrections[variant].alarmed
        self._observed += 1
        if self._observed % _FASTEST_EVERY == 0:
            self._follow()
            self._fastest = self._find_fastest()

    def _follow(self) -> None:
        """The machine is faster or slower than when the costs were measured: so it will be on core
        counts that nobody has tried here."""
        tables = [table for row in self._tables for table in row]
        drift = max(tables, key=lambda table: table.observed).drift()
        for table in tables:
            if not table.observed:
                table.follow(drift)

    def _find_fastest(self) -> SegmentCosts:
        return min((t for row in self._tables for t in row), key=lambda t: t.remaining(0))
