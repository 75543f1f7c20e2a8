"""Predictors of slowdowns: ours, and what it has to beat.

none       nobody disturbs anybody
linear     VELTAIR's proxy (its section 4.3): one level for the machine, linear in accesses to and
           misses of the shared caches; everybody is slowed down by it alike, and each level has
           its versions: those that did best at it in training
roofline   bandwidth-share: the part of the victim's time that its bytes take at a core's rate
           stretches by the demand over the bandwidth; nothing is fitted
xgboost    ours: boosted trees on logarithms of slowdowns over footprint features, monotone where
           physics is, with quantiles calibrated on mixes that training has not seen (split
           conformal prediction, Lei et al. 2018)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from tenantdl.predict.features import MONOTONE, Array, matrix, slowdowns
from tenantdl.predict.samples import Party, Room, Sample

# Of the mixes, kept back to calibrate quantiles with.
_CALIBRATION = 0.2
_ROUNDS = 400
# Interference levels of the linear proxy.
_LEVELS = 10
_PARAMETERS = {
    "tree_method": "hist",
    "objective": "reg:squarederror",
    "max_depth": 6,
    "learning_rate": 0.06,
    "subsample": 0.8,
    "colsample_bytree": 0.8,
    "min_child_weight": 4,
    "nthread": 1,
    "verbosity": 0,
}


class Predictor(Protocol):
    """Learned from samples; says slowdowns of others."""

    def predict(self, samples: Sequence[Sample]) -> Array:
        """Expected slowdowns [samples]; what was measured of them is not looked at."""

    def choose(self, samples: Sequence[Sample]) -> int:
        """Which of one victim's variants, in one company, will be done first."""


def soonest(predictor: Predictor, samples: Sequence[Sample]) -> int:
    """The variant with the least predicted time."""
    alone = np.array([sample.victim.alone_ns for sample in samples])
    return int(np.argmin(alone * predictor.predict(samples)))


class Undisturbed:
    """`none`."""

    def __init__(self, samples: Sequence[Sample], room: Room, seed: int) -> None: ...

    def predict(self, samples: Sequence[Sample]) -> Array:
        """Ones."""
        return np.ones(len(samples))

    def choose(self, samples: Sequence[Sample]) -> int:
        """By predicted time."""
        return soonest(self, samples)


class Linear:
    """`linear`. Where no counters could be read, the footprints' rates stand for them."""

    def __init__(self, samples: Sequence[Sample], room: Room, seed: int) -> None:
        self._weights = np.linalg.lstsq(_level(samples), slowdowns(samples), rcond=None)[0]
        levels = self.predict(samples)
        self._bounds = np.quantile(levels, np.linspace(0, 1, _LEVELS + 1)[1:-1])
        measured: dict[tuple[int, int], list[float]] = {}
        for level, sample in zip(np.searchsorted(self._bounds, levels), samples, strict=True):
            measured.setdefault((int(level), sample.victim.variant), []).append(sample.slowdown)
        self._slowdowns = {key: float(np.mean(values)) for key, values in measured.items()}

    def predict(self, samples: Sequence[Sample]) -> Array:
        """The machine's level, never below 1."""
        level: Array = np.maximum(1.0, _level(samples) @ self._weights)
        return level

    def choose(self, samples: Sequence[Sample]) -> int:
        """The version of the level: the one that was soonest at it in training."""
        level = int(np.searchsorted(self._bounds, float(np.median(self.predict(samples)))))
        times = [
            s.victim.alone_ns * self._slowdowns.get((level, s.victim.variant), np.inf)
            for s in samples
        ]
        return int(np.argmin(times))


class Roofline:
    """`roofline`."""

    def __init__(self, samples: Sequence[Sample], room: Room, seed: int) -> None:
        self._room = room

    def predict(self, samples: Sequence[Sample]) -> Array:
        """See the module."""
        found = []
        for sample in samples:
            own = self._traffic(sample.victim)
            rate = own / sample.victim.cores / self._room.core_bandwidth
            demand = own + sum(map(self._traffic, sample.others))
            stretch = max(1.0, demand / self._room.bandwidth)
            found.append(1 + min(1.0, rate) * (stretch - 1))
        return np.array(found)

    def choose(self, samples: Sequence[Sample]) -> int:
        """By predicted time."""
        return soonest(self, samples)

    def _traffic(self, party: Party) -> float:
        """Bytes/ns of memory: what streams, and what exceeds its cores' part of the caches."""
        part = self._room.cache_bytes / self._room.cores
        spilt = max(0.0, 1 - part / max(1.0, party.footprint.shared_bytes))
        return party.stream + party.reuse * spilt


class Boosted:
    """`xgboost`. `trust` is the part of the trees' logarithms that fits the mixes kept back best:
    about 1 where there is something to learn, 0 where all of it was noise."""

    def __init__(self, samples: Sequence[Sample], room: Room, seed: int) -> None:
        import xgboost

        self._room = room
        kept, held = _split(samples, seed)
        # Without counters their features are none: trees draw lots among those there are.
        self._known = np.flatnonzero(~np.isnan(matrix(samples, room)).all(axis=0))
        parameters: dict[str, Any] = _PARAMETERS | {
            "seed": seed,
            "monotone_constraints": tuple(MONOTONE[column] for column in self._known),
        }

        def fit(chosen: Sequence[Sample]) -> Any:
            target = np.log(np.maximum(slowdowns(chosen), 0.5))
            data = xgboost.DMatrix(self._matrix(chosen), target)
            return xgboost.train(parameters, data, _ROUNDS)

        self.trust = 1.0
        self._trees = fit(kept)
        if held:
            said, true = np.log(self.predict(held)), np.log(slowdowns(held))
            self.trust = float(np.clip(said @ true / max(said @ said, 1e-12), 0.0, 1.0))
        self._residuals = np.sort(self._residuals_of(held)) if held else np.zeros(1)
        # The quantiles are known; what they were calibrated on may be learned from as well.
        self._trees = fit(samples)

    def predict(self, samples: Sequence[Sample]) -> Array:
        """The middle one of what is to be expected."""
        if not len(samples):
            return np.zeros(0)
        logarithms: Array = self._trees.inplace_predict(self._matrix(samples)).astype(np.float64)
        return np.exp(self.trust * logarithms)

    def choose(self, samples: Sequence[Sample]) -> int:
        """By predicted time."""
        return soonest(self, samples)

    def quantile(self, samples: Sequence[Sample], q: float) -> Array:
        """Slowdowns that a part `q` of samples of new mixes stays below."""
        rank = min(len(self._residuals) - 1, int(np.ceil(q * (len(self._residuals) + 1))) - 1)
        upper: Array = self.predict(samples) * np.exp(self._residuals[max(0, rank)])
        return upper

    def _matrix(self, samples: Sequence[Sample]) -> Array:
        rows: Array = matrix(samples, self._room)[:, self._known]
        return rows

    def _residuals_of(self, samples: Sequence[Sample]) -> Array:
        residuals: Array = np.log(slowdowns(samples)) - np.log(self.predict(samples))
        return residuals


PREDICTORS: dict[str, Callable[[Sequence[Sample], Room, int], Predictor]] = {
    "none": Undisturbed,
    "linear": Linear,
    "roofline": Roofline,
    "xgboost": Boosted,
}


def _level(samples: Sequence[Sample]) -> Array:
    rows = []
    for sample in samples:
        accesses, misses = sample.counters or _estimated(sample)
        rows.append((1.0, accesses, misses, misses / max(accesses, 1e-9)))
    return np.array(rows).reshape(len(samples), 4)


def _estimated(sample: Sample) -> tuple[float, float]:
    """By what counters said of each alone, or by footprints."""
    pairs = [p.counted or (p.stream + p.reuse, p.stream) for p in (sample.victim, *sample.others)]
    return sum(accesses for accesses, _ in pairs), sum(misses for _, misses in pairs)


def _split(samples: Sequence[Sample], seed: int) -> tuple[list[Sample], list[Sample]]:
    """(to train, to calibrate), by mixes."""
    mixes = sorted({sample.mix for sample in samples})
    count = int(len(mixes) * _CALIBRATION)
    picked = np.random.default_rng(seed).permutation(len(mixes))[:count].tolist()
    held = {mixes[index] for index in picked}
    kept = [sample for sample in samples if sample.mix not in held]
    return kept, [sample for sample in samples if sample.mix in held]
