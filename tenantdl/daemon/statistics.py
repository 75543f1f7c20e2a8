"""What became of requests: counts by model and tenant, and the last minute of each tenant.

The numbers behind /metrics, /status and /v2/models/M/stats. Adding to them is on the path of every
request: plain integers, put into words only when somebody asks. Times in ns.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from tenantdl.daemon.observe.window import Window, bucket
from tenantdl.ids import ModelId, TenantId
from tenantdl.units import MS, Ns, to_seconds

LATENCY_BOUNDS_S = tuple(round(0.001 * 2.0 ** (step / 2), 6) for step in range(28))
# In the order of Triton's statistics.
PARTS = ("success", "fail", "queue", "compute_input", "compute_infer", "compute_output")


@dataclass(slots=True)
class Timing:
    """Where one request's time went. `late`: done after its deadline."""

    tenant: TenantId
    model: ModelId
    total: int = 0
    queue: int = 0
    compute_input: int = 0
    compute_infer: int = 0
    compute_output: int = 0
    late: bool = False


@dataclass(slots=True)
class Duration:
    """How often something happened, and how long it took in all."""

    count: int = 0
    ns: int = 0

    def add(self, ns: int) -> None:
        """Once more, for `ns`."""
        self.count += 1
        self.ns += ns


@dataclass(slots=True)
class Served:
    """One tenant's requests of one model since the start. `refused`: by reason; `latencies`: of
    answers, up to each of LATENCY_BOUNDS_S and beyond."""

    parts: dict[str, Duration] = field(default_factory=lambda: {part: Duration() for part in PARTS})
    in_time: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    latencies: list[int] = field(default_factory=lambda: [0] * (len(LATENCY_BOUNDS_S) + 1))
    last_ms: int = 0


class Named(Protocol):
    """A model or an application."""

    @property
    def id(self) -> ModelId:
        """What timings call it."""

    @property
    def name(self) -> str:
        """What clients call it."""

    @property
    def version(self) -> str:
        """Of several under this name."""


class Statistics:
    """All of a daemon's. `served`: by model, version and tenant; `queues`: how many of a tenant's
    requests are inside now; `windows`: each tenant's last minute."""

    def __init__(
        self,
        label: Callable[[ModelId], tuple[str, str]],
        queues: Callable[[], Mapping[TenantId, int]],
    ) -> None:
        """`label`: name and version of a model that is served."""
        self.label = label
        self._started = time.time_ns() - time.monotonic_ns()
        self.queues = queues
        self.windows: defaultdict[TenantId, Window] = defaultdict(Window)
        self.served: dict[tuple[str, str, TenantId], Served] = {}

    def answered(self, timing: Timing, now: Ns) -> None:
        """A request was answered at `now` (monotonic)."""
        served = self._served(timing)
        served.last_ms = (now + self._started) // MS
        served.in_time += not timing.late
        served.latencies[bisect_left(LATENCY_BOUNDS_S, to_seconds(timing.total))] += 1
        parts = served.parts
        parts["success"].add(timing.total)
        parts["queue"].add(timing.queue)
        parts["compute_input"].add(timing.compute_input)
        parts["compute_infer"].add(timing.compute_infer)
        second = self.windows[timing.tenant].at(now)
        second.answered += 1
        second.in_time += not timing.late
        second.latencies[bucket(timing.total)] += 1
        second.queued += timing.queue
        second.computed += timing.compute_infer

    def encoded(self, timing: Timing) -> None:
        """The answer was put into bytes, which took `timing.compute_output`."""
        self._served(timing).parts["compute_output"].add(timing.compute_output)

    def refused(self, timing: Timing, reason: str, now: Ns) -> None:
        """A request was refused at `now` (monotonic), after `timing.total`."""
        served = self._served(timing)
        served.refused[reason] += 1
        served.parts["fail"].add(timing.total)
        self.windows[timing.tenant].at(now).refused[reason] += 1

    def model_stats(self, model: Named) -> dict[str, Any]:
        """One model's entry in Triton's statistics extension."""
        whole = Served()
        for (name, version, _), served in self.served.items():
            if (name, version) == (model.name, model.version):
                whole.last_ms = max(whole.last_ms, served.last_ms)
                for part, duration in served.parts.items():
                    whole.parts[part].count += duration.count
                    whole.parts[part].ns += duration.ns
        parts = {part: {"count": d.count, "ns": d.ns} for part, d in whole.parts.items()}
        unused = {key: {"count": 0, "ns": 0} for key in ("cache_hit", "cache_miss")}
        count = whole.parts["success"].count
        return {
            "name": model.name,
            "version": model.version,
            "last_inference": whole.last_ms,
            "inference_count": count,
            "execution_count": count,
            "inference_stats": {**parts, **unused},
            "batch_stats": [],
        }

    def _served(self, timing: Timing) -> Served:
        key = (*self.label(timing.model), timing.tenant)
        served = self.served.get(key)
        if served is None:
            served = self.served[key] = Served()
        return served
