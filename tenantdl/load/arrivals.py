"""Arrival processes: when requests of one tenant are due. Seeded; nanoseconds from the start.

Each keeps the mean rate that it is asked for (gaps are never clipped: that alone has put published
"Poisson" loads 5 % above their label).

  poisson    independent users
  gamma      bursts: gaps with a coefficient of variation above 1 (below 1: more regular)
  constant   a camera; the phase is random
  trace      recorded times, stretched to the rate and repeated as long as needed

Any of them can step: `pace` gives relative rates for equal parts of the run.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tenantdl.errors import UserError
from tenantdl.units import SECOND

ARRIVALS_MAX = 10_000_000
Times = NDArray[np.int64]


class Shape(NamedTuple):
    """`burstiness`: coefficient of variation of gamma gaps. `trace`: file of times in seconds.
    `pace`: relative rates of equal parts of the run (empty: steady)."""

    burstiness: float = 2.0
    trace: str | None = None
    pace: tuple[float, ...] = ()


def arrive(
    process: str, rate: float, duration_s: float, rng: np.random.Generator, shape: Shape
) -> Times:
    """When requests are due by the process of that name: ascending, below `duration_s`, at a mean
    of `rate` a second. Raises UserError for bad traces and for far too many."""
    times = ARRIVALS[process](rate, duration_s, rng, shape)
    return _paced(times, duration_s, shape.pace) if shape.pace else times


def _paced(times: Times, duration_s: float, pace: tuple[float, ...]) -> Times:
    """`times` of a steady rate, moved so that parts of the run get their part of the requests."""
    parts = np.linspace(0.0, duration_s * SECOND, len(pace) + 1)
    share = np.concatenate([[0.0], np.cumsum(pace)]) / sum(pace) * duration_s * SECOND
    moved: Times = np.rint(np.interp(times, share, parts)).astype(np.int64)
    return moved


def poisson(rate: float, duration_s: float, rng: np.random.Generator, shape: Shape) -> Times:
    """Exponential gaps."""
    return _renewal(lambda n: rng.exponential(1.0 / rate, n), rate, duration_s)


def gamma(rate: float, duration_s: float, rng: np.random.Generator, shape: Shape) -> Times:
    """Gamma gaps. The process is started well before time 0, else it would begin with a burst."""
    k = 1.0 / shape.burstiness**2
    warm_up_s = 20.0 * shape.burstiness**2 / rate
    times = _renewal(lambda n: rng.gamma(k, 1.0 / (rate * k), n), rate, duration_s + warm_up_s)
    times = times - round(warm_up_s * SECOND)
    return times[times >= 0]


def constant(rate: float, duration_s: float, rng: np.random.Generator, shape: Shape) -> Times:
    """Equal gaps from a random phase."""
    times = (np.arange(_bounded(rate, duration_s) + 1) + rng.random()) / rate
    return _within(times, duration_s)


def trace(rate: float, duration_s: float, rng: np.random.Generator, shape: Shape) -> Times:
    """The times of a file, from its first on. Raises UserError for what is no list of times."""
    recorded = read_trace(shape.trace or "")
    # One mean gap after the last arrival the trace starts over.
    period = float(recorded[-1]) * len(recorded) / (len(recorded) - 1)
    stretch = len(recorded) / period / rate
    rounds = int(duration_s / (period * stretch)) + 1
    _bounded(rate, duration_s)
    times = (recorded[None, :] + period * np.arange(rounds)[:, None]).ravel() * stretch
    return _within(times, duration_s)


def read_trace(path: str) -> NDArray[np.float64]:
    """Ascending times in seconds from 0, one a line of `path`. Raises UserError."""
    try:
        times: NDArray[np.float64] = np.loadtxt(
            Path(path), dtype=np.float64, ndmin=1, max_rows=ARRIVALS_MAX
        )
    except (OSError, ValueError) as error:
        raise UserError(f"not a list of times in seconds: {error}", where=path) from error
    if times.ndim != 1 or len(times) < 2 or not np.all(np.diff(times) >= 0):
        raise UserError("needs two or more ascending times, one a line", where=path)
    if times[-1] == times[0]:
        raise UserError("all times are the same", where=path)
    times -= times[0]
    return times


ARRIVALS: dict[str, Callable[[float, float, np.random.Generator, Shape], Times]] = {
    "poisson": poisson,
    "gamma": gamma,
    "constant": constant,
    "trace": trace,
}


def _renewal(gaps: Callable[[int], NDArray[np.float64]], rate: float, duration_s: float) -> Times:
    """Sums of independent gaps below `duration_s`."""
    expected = _bounded(rate, duration_s)
    chunk = expected + 10 * int(expected**0.5) + 10
    times = np.cumsum(gaps(chunk))
    while times[-1] < duration_s:
        times = np.concatenate([times, times[-1] + np.cumsum(gaps(chunk))])
    return _within(times, duration_s)


def _bounded(rate: float, duration_s: float) -> int:
    expected = round(rate * duration_s)
    if expected > ARRIVALS_MAX:
        raise UserError(f"{expected} arrivals are too many; at most {ARRIVALS_MAX}")
    return expected


def _within(seconds: NDArray[np.floating[Any]], duration_s: float) -> Times:
    times: Times = np.rint(seconds * SECOND).astype(np.int64)
    return times[times < round(duration_s * SECOND)]
