"""Layer times on c cores where none were published: a scaling model fitted to those that were.

    t(layer, c) = a·MACs/c + b·MACs/(c·min(1, out/64)) + d·weights + e + f·c      [µs]

The terms: arithmetic shared out over cores; the same for layers with few output channels, which
fill fewer registers; weights that every core reads; a constant start; a barrier that costs more
the more cores meet. Coefficients minimise the relative error and are never negative. `held_out`
says how far off the model is on a network that it was not fitted to.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

DATA = Path(__file__).parent / "data"
PUBLISHED = ("googlenet", "resnet50")
# Both tables have these; ResNet-50's column for 64 cores is slower than 56: another effect.
FITTED_CORES = (8, 16, 24, 32, 40, 48, 56)
_FULL_CHANNELS = 64


class HeldOut(NamedTuple):
    """Relative errors of layer times of `model`, which the fit has not seen. `total`: predicted
    over published time of the whole network, smallest and largest of all core counts."""

    model: str
    median: float
    p90: float
    total: tuple[float, float]


class Work(NamedTuple):
    """What layers are: multiply-accumulates, bytes of weights and of activations, output
    channels."""

    macs: Array
    weights: Array
    activations: Array
    channels: Array


def layers(model: str) -> Work:
    """The work of a model's layers in the order of its table."""
    table = np.loadtxt(DATA / f"{model}_layers.csv", delimiter=",", skiprows=1, dtype=np.float64)
    _, h, w, c_in, c_out, k_h, k_w, p_h, p_w, s_h, s_w, groups = table.T
    out_h = (h + 2 * p_h - k_h) // s_h + 1
    out_w = (w + 2 * p_w - k_w) // s_w + 1
    filters = c_out * c_in / groups * k_h * k_w
    return Work(
        macs=out_h * out_w * filters,
        weights=4 * filters,
        activations=4 * (h * w * c_in + out_h * out_w * c_out),
        channels=c_out,
    )


def published(model: str) -> tuple[tuple[int, ...], Array]:
    """Core counts and published times in µs [layers, counts]."""
    path = DATA / f"{model}_us.csv"
    with path.open() as lines:
        names = next(lines).strip().split(",")[1:]
    counts = tuple(int(name.removeprefix("us_").removesuffix("cores")) for name in names)
    times = np.loadtxt(path, delimiter=",", skiprows=1, dtype=np.float64)[:, 1:]
    return counts, times


def predict(work: Work, counts: tuple[int, ...], coefficients: Array) -> Array:
    """Times in µs [layers, counts]."""
    times: Array = (_features(work, counts) @ coefficients).reshape(-1, len(counts))
    return times


@lru_cache(maxsize=4)
def fit(models: tuple[str, ...] = PUBLISHED) -> Array:
    """Coefficients fitted to the published times of `models`."""
    columns, times = [], []
    for model in models:
        counts, table = published(model)
        chosen = [counts.index(count) for count in FITTED_CORES]
        columns.append(_features(layers(model), FITTED_CORES))
        times.append(table[:, chosen].ravel())
    target = np.concatenate(times)
    return _non_negative(np.concatenate(columns) / target[:, None], np.ones_like(target))


def all_cores() -> float:
    """How much longer layers take on all 64 cores of the published machine than on 56: the median
    of ResNet-50's, the only ones published for both."""
    counts, times = published("resnet50")
    return float(np.median(times[:, counts.index(64)] / times[:, counts.index(56)]))


def held_out() -> list[HeldOut]:
    """For every published model: the error of a fit to the others."""
    errors = []
    for model in PUBLISHED:
        coefficients = fit(tuple(other for other in PUBLISHED if other != model))
        counts, table = published(model)
        known = table[:, [counts.index(count) for count in FITTED_CORES]]
        guess = predict(layers(model), FITTED_CORES, coefficients)
        relative = np.abs(guess / known - 1)
        total = guess.sum(axis=0) / known.sum(axis=0)
        median, p90 = (float(np.quantile(relative, q)) for q in (0.5, 0.9))
        errors.append(HeldOut(model, median, p90, (float(total.min()), float(total.max()))))
    return errors


def _features(work: Work, counts: tuple[int, ...]) -> Array:
    cores = np.array(counts, dtype=np.float64)[None, :]
    macs, channels = work.macs[:, None], work.channels[:, None]
    ones = np.ones((len(work.macs), len(counts)))
    terms: list[Any] = [
        macs / cores,
        macs / cores / np.minimum(1.0, channels / _FULL_CHANNELS),
        work.weights[:, None] * ones,
        ones,
        cores * ones,
    ]
    features: Array = np.stack([term.ravel() for term in terms], axis=1)
    return features


def _non_negative(matrix: Array, target: Array) -> Array:
    """Least squares; coefficients that come out negative are dropped, one round at a time."""
    scale = np.linalg.norm(matrix, axis=0)
    active = np.ones(matrix.shape[1], dtype=bool)
    while True:
        solution: Array = np.zeros(matrix.shape[1])
        solution[active] = np.linalg.lstsq(matrix[:, active] / scale[active], target, rcond=None)[0]
        if (solution >= 0).all():
            result: Array = solution / scale
            return result
        active &= solution > 0
