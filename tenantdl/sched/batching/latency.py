"""l(b), how long a batch of b takes, and what follows from it alone: targets, bounds. Ns, sizes.

Symphony §3: a batch of b on each of N slots, starts staggered, serves N·b/l(b) requests a second
if l(b)·(1 + 1/N) fits the latency target; slots that do not coordinate need 2·l(b) to fit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate

from tenantdl.errors import InvariantError
from tenantdl.units import SECOND, Ns

SIZE_MAX = 1024
_NEARLY = 0.97


class Latency:
    """l(b) for b = 1 … size_max; `times[b]`, where times[0] is 0. Never falls with b."""

    def __init__(self, times: Sequence[int]) -> None:
        if not 0 < len(times) <= SIZE_MAX or min(times) < 0:
            raise InvariantError(f"not the times of batches of 1 to {SIZE_MAX}: {times}")
        self.times: list[int] = [0, *accumulate(times, max)]
        self.size_max: int = len(times)

    def fit(self, budget: int, near: int = 0) -> int:
        """The largest batch that takes at most `budget`; 0 if none does. Looks first around `near`,
        a size: of many models' tables only what is needed is in a cache."""
        times, low, high, step = self.times, 0, self.size_max, 1
        if near > high:
            near = high
        if times[near] <= budget:
            low = near
            while low + step <= high:
                if times[low + step] > budget:
                    high = low + step - 1
                    break
                low += step
                step *= 2
        else:
            high = near - 1
            while high - step > 0:
                if times[high - step] <= budget:
                    low = high - step
                    break
                high -= step + 1
                step *= 2
        while low < high:
            middle = (low + high + 1) >> 1
            if times[middle] <= budget:
                low = middle
            else:
                high = middle - 1
        return low


def linear(alpha: Ns, beta: Ns, size_max: int) -> tuple[Ns, ...]:
    """alpha·b + beta."""
    return tuple(Ns(alpha * size + beta) for size in range(1, size_max + 1))


def padded(times: Mapping[int, Ns]) -> tuple[Ns, ...]:
    """Where only some sizes are compiled, a batch takes as long as the next size up."""
    sizes = sorted(times)
    steps = zip([0, *sizes], sizes, strict=False)
    return tuple(times[above] for below, above in steps for _ in range(below, above))


def target_batch(latency: Latency, rate: float, budget: int, data: int) -> int:
    """The size to aim for at `rate` (requests a second) so that waiting and running fit `budget`.

    Waiting for one of n = rate·l(b)/b staggered slots takes l(b)/n, which is b/rate; so does
    gathering, where less than one slot is kept busy. `data`: ns of transfer a request. At least 1.
    """
    interval = SECOND / max(rate, 1e-9)
    low, high = 1, latency.size_max
    while low < high:
        size = (low + high + 1) >> 1
        if latency.times[size] + size * interval <= budget - data * size:
            low = size
        else:
            high = size - 1
    return low


def useful_size(latency: Latency) -> int:
    """The smallest size that serves nearly as many requests a second as any."""
    rates = [size / max(1, latency.times[size]) for size in range(1, latency.size_max + 1)]
    enough = _NEARLY * max(rates)
    return 1 + next(place for place, rate in enumerate(rates) if rate >= enough)


def busy_slots(latency: Latency, rate: float, size: int) -> float:
    """How many slots `rate` keeps busy in batches of `size`."""
    return rate * latency.times[size] / (size * SECOND)


def staggered_bound(latency: Latency, slots: int, slo: int) -> tuple[int, float]:
    """Largest size with l(b)(1 + 1/N) ≤ SLO and the rate it serves; (0, 0) if there is none."""
    return _bound(latency, slots, slo * slots // (slots + 1))


def uncoordinated_bound(latency: Latency, slots: int, slo: int) -> tuple[int, float]:
    """Largest size with 2·l(b) ≤ SLO and the rate it serves; (0, 0) if there is none."""
    return _bound(latency, slots, slo // 2)


def _bound(latency: Latency, slots: int, budget: int) -> tuple[int, float]:
    size = latency.fit(budget)
    return size, slots * size * SECOND / latency.times[size] if size else 0.0
