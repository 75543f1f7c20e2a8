"""A co-run campaign on a simulated machine: who is slowed down by whom, sampled.

Every run fills a random part of the machine with random (model, version, cores) in random order,
side by side from core 0; the victim is one of them. Its versions take turns in the same company, so
that what each choice would have cost is known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from tenantdl.ids import CoreId
from tenantdl.predict.features import Array
from tenantdl.predict.model import soonest
from tenantdl.predict.samples import Party, Room, Sample, mix_of
from tenantdl.sched.costs import PlanCosts
from tenantdl.sim.contention import Running, kept_parts, slowdowns, traffic
from tenantdl.sim.footprints import CACHE_GBS, demand, footprints, places
from tenantdl.sim.machines import MachineFile
from tenantdl.sim.profiles import CORE_COUNTS, KNOWN, VERSIONS, profile
from tenantdl.units import MS, Ns

_MIB = 1024**2
# Measurements average a few runs each.
_RUNS = 10


@dataclass(frozen=True, slots=True)
class Encounter:
    """A victim's versions in one company: a sample each, and its slowdown without noise."""

    samples: tuple[Sample, ...]
    truth: tuple[float, ...]


def room(machine: MachineFile) -> Room:
    """What the machine's launches share."""
    domains = machine.cores / machine.domain_cores
    sockets = machine.cores / machine.socket_cores
    return Room(
        machine.cores, machine.bandwidth_gbs * sockets, machine.cache_mb * _MIB * domains, CACHE_GBS
    )


def campaign(
    machine: MachineFile,
    count: int,
    seed: int,
    models: Sequence[str] = KNOWN,
    versions: int = VERSIONS,
) -> list[Encounter]:
    """`count` encounters of `models`."""
    rng = np.random.default_rng(seed)
    found: list[Encounter] = []
    while len(found) < count:
        company = _company(machine, rng, models, versions)
        if len(company) > 1:
            found.append(_meet(machine, company, rng, versions))
    return found


_Seat = tuple[str, int, int, int]  # model, version, first core, cores


def _company(
    machine: MachineFile, rng: np.random.Generator, models: Sequence[str], versions: int
) -> list[_Seat]:
    counts = [c for c in CORE_COUNTS if c <= max(1, machine.cores // 2)]
    chances = np.array([1 / c**0.5 for c in counts])
    full = machine.cores * rng.uniform(0.3, 1.0)
    company: list[_Seat] = []
    used = 0
    while used < full:
        cores = int(rng.choice(counts, p=chances / chances.sum()))
        if used + cores > machine.cores:
            break
        model = models[int(rng.integers(len(models)))]
        company.append((model, int(rng.integers(versions)), used, cores))
        used += cores
    return company


def _meet(
    machine: MachineFile, company: Sequence[_Seat], rng: np.random.Generator, versions: int
) -> Encounter:
    place = int(rng.integers(len(company)))
    model, _, first, cores = company[place]
    others = [seat for i, seat in enumerate(company) if i != place]
    running = [_running(machine, seat, versions) for seat in others]
    own = {core // machine.domain_cores for core in range(first, first + cores)}
    parties = tuple(_party(seat, own, machine, versions) for seat in others)
    mix = mix_of(model, [seat[0] for seat in others])
    samples, truth = [], []
    for version in range(versions):
        seat = (model, version, first, cores)
        everyone = [_running(machine, seat, versions), *running]
        slow = slowdowns(machine, everyone)
        noise = 1 + machine.noise / _RUNS**0.5 * float(rng.standard_normal())
        samples.append(
            Sample(
                mix,
                _party(seat, own, machine, versions),
                parties,
                slow[0] * noise,
                counters=_counters(machine, everyone, slow),
            )
        )
        truth.append(slow[0])
    return Encounter(tuple(samples), tuple(truth))


def _counters(
    machine: MachineFile, running: Sequence[Running], slow: Sequence[float]
) -> tuple[float, float]:
    """Accesses and misses of the shared caches in bytes/ns, as counters would show them."""
    kept = kept_parts(machine, running)
    accesses = misses = 0.0
    for launch, part, slower in zip(running, kept, slow, strict=True):
        accesses += (launch.demand.stream + launch.demand.reuse) / slower
        misses += traffic(launch.demand, part) / slower
    return accesses, misses


@lru_cache(maxsize=64)
def _costs(model: str, versions: int) -> PlanCosts:
    return PlanCosts(profile(model, versions=versions), Ns(MS), max(CORE_COUNTS))


def _times(seat: _Seat, versions: int) -> tuple[float, float]:
    model, version, _, cores = seat
    costs = _costs(model, versions)
    return costs.at(version, cores).remaining(0), costs.row(version)[0].remaining(0)


def _running(machine: MachineFile, seat: _Seat, versions: int) -> Running:
    model, version, first, cores = seat
    group = [CoreId(core) for core in range(first, first + cores)]
    return Running(
        _costs(model, versions),
        version,
        0,
        cores,
        places(group, machine.socket_cores),
        places(group, machine.domain_cores),
        demand(footprints(model, versions)[version], *_times(seat, versions)),
    )


def _party(seat: _Seat, own: set[int], machine: MachineFile, versions: int) -> Party:
    model, version, first, cores = seat
    beside = sum(core // machine.domain_cores in own for core in range(first, first + cores))
    footprint = footprints(model, versions)[version]
    return Party(model, version, cores, _times(seat, versions)[0], footprint, beside / cores)


def variants(
    machine: MachineFile, models: Sequence[str] = KNOWN, versions: int = VERSIONS
) -> dict[str, list[Party]]:
    """Each model's versions as parties on a typical number of cores."""
    cores = max(1, machine.cores // 8)
    return {
        model: [_party((model, v, 0, cores), {0}, machine, versions) for v in range(versions)]
        for model in models
    }


class Truth:
    """The contention model as a predictor: it is asked, not learned. Parties sit side by side in
    the order in which a sample has them, the victim first."""

    def __init__(self, machine: MachineFile, versions: int = VERSIONS) -> None:
        self._machine, self._versions = machine, versions

    def predict(self, samples: Sequence[Sample]) -> Array:
        """Slowdowns without noise; those who find no room are left out."""
        return np.array([self._slowdown(sample) for sample in samples])

    def choose(self, samples: Sequence[Sample]) -> int:
        """By time."""
        return soonest(self, samples)

    def _slowdown(self, sample: Sample) -> float:
        used, running = 0, []
        for party in (sample.victim, *sample.others):
            if used + party.cores <= self._machine.cores:
                seat = (party.model, party.variant, used, party.cores)
                running.append(_running(self._machine, seat, self._versions))
                used += party.cores
        return slowdowns(self._machine, running)[0]
