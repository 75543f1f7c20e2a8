"""The highest rate at which a share of the requests is in time (VELTAIR's metric: 95 %)."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from functools import partial

from tenantdl.sim.simulate import Result, Scenario, at_rate, run

# The search ends when the bracket is this narrow.
PRECISION = 1.02
_STEP = 1.6
_PROBES_MAX = 40


def find_qps(scenario: Scenario, share: float, *, each: bool = False) -> Result:
    """The run at the highest rate found at which `share` of all requests (`each`: of every
    tenant's) are in time, to within 2 %. The search starts at the scenario's rate; it supposes that
    more load is never easier."""
    best: Result | None = None
    failed: float | None = None
    rate = scenario.rate
    for _ in range(_PROBES_MAX):
        result = holds(scenario, rate, share, each=each)
        if result is not None:
            best = result
        else:
            failed = rate
        held = best.scenario.rate if best is not None else None
        if held is None:
            rate /= _STEP
        elif failed is None:
            rate *= _STEP
        elif failed / held <= PRECISION:
            break
        else:
            rate = (held * failed) ** 0.5
    return best if best is not None else run(at_rate(scenario, rate))


def holds(scenario: Scenario, rate: float, share: float, *, each: bool = False) -> Result | None:
    """The run at `rate`, or None if fewer than `share` of its requests (`each`: of some tenant's)
    are in time."""
    misses_max = int((1 - share) * scenario.requests * 1.1)
    result = run(at_rate(scenario, rate), misses_max=misses_max)
    return result if (result.least if each else result.attainment) >= share else None


def find_all(
    scenarios: list[Scenario], share: float, jobs: int = 1, *, each: bool = False
) -> list[Result]:
    """`find_qps` for each scenario, on `jobs` processes."""
    find = partial(find_qps, share=share, each=each)
    if jobs == 1:
        return [find(scenario) for scenario in scenarios]
    with ProcessPoolExecutor(jobs) as pool:
        return list(pool.map(find, scenarios))
