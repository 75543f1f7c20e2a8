"""From a predictor to the tables that the scheduler reads: integers, looked up in well under 1 µs.

The scheduler knows one pressure: the sum of what everybody exerts. Here that is traffic in
physical units, `stream + weight · reuse` over a unit, with the weight under which the predicted
slowdowns follow the pressure most closely; each variant's table then is its mean predicted slowdown
at evenly spaced pressures, over many companies that a campaign has seen. What a single number
cannot say (whose cache it is) is lost: the error of tables is reported beside the predictor's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import msgspec
import numpy as np

from tenantdl.predict.features import Array
from tenantdl.predict.model import Predictor, soonest
from tenantdl.predict.samples import Party, Room, Sample

LEVELS = 9
_UNIT = 1000
_WEIGHTS = (0.0, 0.02, 0.05, 0.1, 0.2, 0.4, 0.7, 1.0)
_COMPANIES_MAX = 300
# Of the companies' pressures, the part that stays below the last level.
_SEEN = 0.98
_SMOOTH = 0.05

# (pressure, slowdowns) of each variant, as `sched.config.VariantSpec` has them.
Table = tuple[tuple[int, tuple[int, ...]], ...]
Variants = Mapping[str, Sequence[Party]]


class Tables:
    """A predictor in the scheduler's form; also a predictor itself, to be judged as one."""

    def __init__(
        self, predictor: Predictor, variants: Variants, samples: Sequence[Sample], room: Room
    ) -> None:
        """`variants`: of every model, each as a party on a typical number of cores; `samples`:
        companies to average over."""
        step = max(1, len(samples) // _COMPANIES_MAX)
        companies = [sample for sample in samples if sample.others][::step]
        self._room = room
        told = {
            model: [
                predictor.predict([_meet(company, party) for company in companies])
                for party in parties
            ]
            for model, parties in variants.items()
        }
        self._weight, self._unit = _scale(companies, [t for rows in told.values() for t in rows])
        pressures = np.array([self._pressure(company) for company in companies])
        self._slowdowns = {
            model: [_table(pressures, slow) for slow in rows] for model, rows in told.items()
        }

    def predict(self, samples: Sequence[Sample]) -> Array:
        """By table, as the scheduler would."""
        levels = np.linspace(0.0, 1.0, LEVELS)
        found = []
        for sample in samples:
            table = self._slowdowns[sample.victim.model][sample.victim.variant]
            found.append(float(np.interp(self._pressure(sample), levels, table)))
        return np.array(found)

    def choose(self, samples: Sequence[Sample]) -> int:
        """By predicted time."""
        return soonest(self, samples)

    def export(self, variants: Variants) -> dict[str, Table]:
        """For each model what the scheduler is told of its variants. Their pressure is that of a
        machine full of them, each on one core."""
        return {
            model: tuple(
                (self._full(party), tuple(round(_UNIT * float(value)) for value in table))
                for party, table in zip(parties, self._slowdowns[model], strict=True)
            )
            for model, parties in variants.items()
        }

    def _full(self, party: Party) -> int:
        a_core = _traffic((party,), self._weight) / self._unit / party.cores
        return round(_UNIT * a_core * self._room.cores)

    def _pressure(self, sample: Sample) -> float:
        return _traffic(sample.others, self._weight) / self._unit


def typical(samples: Sequence[Sample]) -> dict[str, list[Party]]:
    """Each victim's variants, as parties on the number of cores that they most often had."""
    met: dict[str, dict[int, list[Party]]] = {}
    for sample in samples:
        victim = sample.victim
        met.setdefault(victim.model, {}).setdefault(victim.variant, []).append(victim)
    found: dict[str, list[Party]] = {}
    for model, variants in met.items():
        common = Counter(party.cores for parties in variants.values() for party in parties)
        cores = common.most_common(1)[0][0]
        found[model] = [
            next((p for p in parties if p.cores == cores), parties[0])
            for _, parties in sorted(variants.items())
        ]
    return found


def _traffic(parties: Sequence[Party], weight: float) -> float:
    return sum(party.stream + weight * party.reuse for party in parties)


def _meet(company: Sample, victim: Party) -> Sample:
    """`victim` in the place of that of `company`."""
    return msgspec.structs.replace(company, victim=victim, counters=None)


def _scale(companies: Sequence[Sample], slowdowns: Sequence[Array]) -> tuple[float, float]:
    """The weight of reuse under which slowdowns rise most nearly in step with pressures, by ranks,
    and the pressure that counts as 1."""
    best, unit, most = 0.0, 1.0, -np.inf
    for weight in _WEIGHTS:
        pressures = np.array([_traffic(company.others, weight) for company in companies])
        score = sum(_agreement(pressures, slow) * float(np.std(slow)) for slow in slowdowns)
        if score > most:
            best, most = weight, score
            unit = float(np.quantile(pressures, _SEEN)) if len(pressures) else 1.0
    return best, max(unit, 1e-9)


def _agreement(first: Array, second: Array) -> float:
    """Spearman's coefficient; 0 where one of them does not vary."""
    if len(first) < 2 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return 0.0
    ranks = [np.argsort(np.argsort(values)) for values in (first, second)]
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


def _table(pressures: Array, slow: Array) -> Array:
    """Slowdowns at the levels: never falling, none without pressure; the least-squares fit that is
    linear between levels, and smooth where few companies are."""
    place = np.clip(pressures, 0, 1) * (LEVELS - 1)
    design = np.maximum(0.0, 1 - np.abs(place[:, None] - np.arange(LEVELS)[None, :]))
    smooth = _SMOOTH * max(1.0, len(slow) ** 0.5) * np.diff(np.eye(LEVELS), 2, axis=0)
    free = np.vstack([design, smooth])[:, 1:]
    target = np.concatenate([slow - 1, np.zeros(LEVELS - 2)])
    rise = np.linalg.lstsq(free, target, rcond=None)[0]
    table: Array = 1 + np.maximum.accumulate(np.maximum(0.0, np.concatenate([[0.0], rise])))
    return table
