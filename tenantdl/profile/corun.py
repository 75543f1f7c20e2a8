"""The co-run campaign: every victim beside every neighbour, the most informative first, as many as
the time allows.

A neighbour is stopped and goes on in turns while its victims run, so that a drifting machine hits
both sides of every ratio. What is worth measuring next is what is known worst: a pair that was
measured has the standard error of its turns, one that was not the slowdown that its traffic could
cause at most. All victims meet one neighbour while it is up; starting it takes longer than that.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from tenantdl.exec.cores import pin
from tenantdl.exec.neighbour import Neighbour, of_stress
from tenantdl.exec.runner import Runner
from tenantdl.exec.stress import KINDS
from tenantdl.machine import this_machine
from tenantdl.predict.samples import Party, Room
from tenantdl.profile.neighbour import of_bundle
from tenantdl.profile.solo import Runners, run_ns
from tenantdl.profile.store import Measured, Store
from tenantdl.profile.subjects import Subject, party, stressor

TURNS = 7
_TURN_NS = 25_000_000
_SETTLE_S = 0.002
# A pair that is known this well (relative standard error) is not measured again.
_ENOUGH = 0.004
# What a pair that nobody has measured may be off by, however little traffic there is.
_UNKNOWN = 0.02
# The segments at the beginning of a run that find the caches cold: about 2 ms.
_COLD_SEGMENTS = 4


@dataclass(frozen=True, slots=True)
class Company:
    """A neighbour: a stressor's kind, or a subject."""

    name: str
    kind: str | None
    subject: Subject | None

    def start(self) -> Neighbour:
        """On the second core, stopped."""
        core = this_machine().cores[1]
        if self.subject is None:
            return of_stress(self.kind or "", core)
        return of_bundle(self.subject.bundle, self.subject.plan, self.subject.variant, core)


def company(found: Sequence[Subject]) -> list[Company]:
    """All stressors, and all subjects of one core."""
    stressors = [Company(f"stress:{kind}", kind, None) for kind in KINDS]
    return stressors + [Company(s.name, None, s) for s in found if s.cores == 1]


def measure_corun(
    store: Store,
    found: Sequence[Subject],
    runners: Runners,
    shared: Room,
    seconds: float,
    report: Callable[[str], None] = lambda text: None,
) -> int:
    """Measure for `seconds`, or until everything is known well enough; how many pairs were."""
    victims = [subject for subject in found if subject.cores == 1]
    neighbours = company(found)
    if len(this_machine().cores) < 2 or not victims:
        return 0
    parties = _parties(store, victims)
    until, measured = time.monotonic() + seconds, 0
    while time.monotonic() < until:
        known = store.measured("corun")
        worth = {c.name: _worths(c, victims, parties, known, shared) for c in neighbours}
        best = max(neighbours, key=lambda c: sum(worth[c.name].values()))
        chosen = [v for v in victims if worth[best.name][v.name] > 0]
        if not chosen:
            break
        report(f"beside {best.name}")
        chosen.sort(key=lambda v: -worth[best.name][v.name])
        with best.start() as neighbour:
            for victim in chosen:
                if time.monotonic() > until:
                    break
                seen = known.get((victim.name, best.name))
                ratios = _beside(runners.of(victim), victim.variant, neighbour)
                store.add("corun", pooled(victim.name, best.name, ratios, seen))
                measured += 1
    return measured


def _parties(store: Store, victims: Sequence[Subject]) -> dict[str, Party]:
    """Of everybody, kept for predictors as well."""
    solos = store.solos()
    found = {v.name: party(v, solos[v.name].quantiles_ns["50"]) for v in victims}
    pin(this_machine().cores[:1])
    known = store.neighbours()
    for kind in KINDS:
        name = f"stress:{kind}"
        if name not in known:
            store.add_neighbour(name, msgspec.json.encode(stressor(kind)).decode())
    stored = store.neighbours()
    return found | {n: msgspec.json.decode(text, type=Party) for n, text in stored.items()}


def _worths(
    who: Company,
    victims: Sequence[Subject],
    parties: dict[str, Party],
    known: dict[tuple[str, str], Measured],
    shared: Room,
) -> dict[str, float]:
    """How badly each victim's slowdown beside `who` is known; 0: well enough."""
    found = {}
    other = parties[who.name]
    for victim in victims:
        seen = known.get((victim.name, who.name))
        if seen is not None:
            found[victim.name] = seen.error if seen.error > _ENOUGH else 0.0
        else:
            own = parties[victim.name]
            felt = (own.stream + own.reuse) / shared.core_bandwidth
            made = (other.stream + other.reuse) / shared.core_bandwidth
            found[victim.name] = _UNKNOWN + min(1.0, felt) * min(1.0, made)
    return found


def _beside(runner: Runner, variant: int, neighbour: Neighbour) -> list[float]:
    """Turn by turn: time beside the neighbour over the mean of those before and after."""
    pin(this_machine().cores[:1])
    alone = [_turn(runner, variant)]
    ratios = []
    for _ in range(TURNS):
        neighbour.go()
        time.sleep(_SETTLE_S)
        together = _turn(runner, variant)
        neighbour.stop()
        alone.append(_turn(runner, variant))
        ratios.append(together / ((alone[-1] + alone[-2]) / 2))
    return ratios


def pooled(victim: str, other: str, ratios: Sequence[float], seen: Measured | None) -> Measured:
    """The median of new `ratios`, with what was `seen` before by their numbers."""
    median = float(np.median(ratios))
    # Of a median, from the median deviation: 1.4826 of it is a standard deviation.
    spread = 1.4826 * float(np.median(np.abs(np.array(ratios) - median))) / median
    error = 1.2533 * spread / len(ratios) ** 0.5
    if seen is None:
        return Measured(victim, other, len(ratios), median, error)
    turns = seen.turns + len(ratios)
    weight = len(ratios) / turns
    slowdown = weight * median + (1 - weight) * seen.slowdown
    both = ((weight * error) ** 2 + ((1 - weight) * seen.error) ** 2) ** 0.5
    return Measured(victim, other, turns, slowdown, both)


def _turn(runner: Runner, variant: int) -> float:
    """Median run of a turn, in ns: one at least, some for short plans."""
    times: list[int] = []
    start = time.perf_counter_ns()
    while not times or time.perf_counter_ns() - start < _TURN_NS:
        times.append(run_ns(runner, variant))
    return float(np.median(times))


def measure_before(
    store: Store,
    found: Sequence[Subject],
    runners: Runners,
    seconds: float,
    report: Callable[[str], None] = lambda text: None,
) -> int:
    """How much slower a run is when another model ran on the core just before; for pairs of first
    variants, until `seconds` have passed; how many were measured."""
    firsts = [s for s in found if s.cores == 1 and s.variant == 0]
    known = store.measured("before")
    pin(this_machine().cores[:1])
    until, measured = time.monotonic() + seconds, 0
    for victim in firsts:
        for other in firsts:
            pair = (victim.name, other.name)
            if victim.name == other.name or pair in known or time.monotonic() > until:
                continue
            report(f"{victim.name} after {other.name}")
            ratios = _after(runners.of(victim), runners.of(other))
            store.add("before", pooled(*pair, ratios, None))
            measured += 1
    return measured


def _after(victim: Runner, other: Runner) -> list[float]:
    """Slowdowns of runs after another model, turn by turn. What it costs is paid in the first
    segments: only these are compared, since the noise of a whole run is larger than that."""
    part = min(_COLD_SEGMENTS, victim.segment_count)

    def run() -> tuple[int, int]:
        start = time.perf_counter_ns()
        victim.run_block(0, part)
        first = time.perf_counter_ns() - start
        if part < victim.segment_count:
            victim.run_block(part, victim.segment_count)
        return first, time.perf_counter_ns() - start

    ratios = []
    run()
    for _ in range(TURNS):
        warm, whole = run()
        run_ns(other, 0)
        cold, _ = run()
        again, whole_again = run()
        ratios.append(1 + (2 * cold - warm - again) / (whole + whole_again))
    return ratios
