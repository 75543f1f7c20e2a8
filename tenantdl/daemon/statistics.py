"""Counts of what was served: for /metrics (Prometheus) and /v2/models/M/stats. Times in ns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from tenantdl.daemon.catalogue import VERSION
from tenantdl.ids import ModelId, TenantId
from tenantdl.units import MS, to_seconds

_BUCKETS_S = tuple(0.001 * 2.0 ** (step / 2) for step in range(28))


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
class _Duration:
    count: int = 0
    ns: int = 0

    def add(self, ns: int) -> None:
        self.count += 1
        self.ns += ns


_PARTS = ("success", "fail", "queue", "compute_input", "compute_infer", "compute_output")


@dataclass(slots=True)
class _ModelStatistics:
    parts: dict[str, _Duration] = field(
        default_factory=lambda: {part: _Duration() for part in _PARTS}
    )
    last_ms: int = 0


class Statistics:
    """All counters of a daemon."""

    def __init__(
        self, models: Mapping[ModelId, Any], queues: Mapping[TenantId, Callable[[], int]]
    ) -> None:
        """`queues`: how many requests of each tenant are inside at the moment."""
        self._models = {name: _ModelStatistics() for name in models}
        self._registry = CollectorRegistry()
        labels = ["tenant"]
        self._requests = Counter(
            "tenantdl_requests",
            "Requests by outcome: ok, or why it was refused",
            ["tenant", "outcome"],
            registry=self._registry,
        )
        self._in_time = Counter(
            "tenantdl_qos_met", "Requests answered in time", labels, registry=self._registry
        )
        self._latency = Histogram(
            "tenantdl_latency_seconds",
            "From arrival at the server to the answer",
            labels,
            buckets=_BUCKETS_S,
            registry=self._registry,
        )
        queue = Gauge("tenantdl_queue_length", "Requests inside", labels, registry=self._registry)
        self._by_tenant = {}
        for tenant, length in queues.items():
            queue.labels(tenant).set_function(length)
            self._by_tenant[tenant] = (
                self._requests.labels(tenant, "ok"),
                self._in_time.labels(tenant),
                self._latency.labels(tenant),
            )

    def answered(self, timing: Timing, unix_ns: int) -> None:
        """A request was answered at `unix_ns`."""
        ok, in_time, latency = self._by_tenant[timing.tenant]
        ok.inc()
        latency.observe(to_seconds(timing.total))
        if not timing.late:
            in_time.inc()
        model = self._models[timing.model]
        model.last_ms = unix_ns // MS
        model.parts["success"].add(timing.total)
        for part in _PARTS[2:]:
            model.parts[part].add(getattr(timing, part))

    def refused(self, timing: Timing, reason: str) -> None:
        """A request was refused after `timing.total`."""
        self._requests.labels(timing.tenant, reason).inc()
        self._models[timing.model].parts["fail"].add(timing.total)

    def model_stats(self, name: ModelId) -> dict[str, Any]:
        """One model's entry in Triton's statistics extension."""
        model = self._models[name]
        parts = {part: {"count": d.count, "ns": d.ns} for part, d in model.parts.items()}
        unused = {key: {"count": 0, "ns": 0} for key in ("cache_hit", "cache_miss")}
        count = model.parts["success"].count
        return {
            "name": name,
            "version": VERSION,
            "last_inference": model.last_ms,
            "inference_count": count,
            "execution_count": count,
            "inference_stats": {**parts, **unused},
            "batch_stats": [],
        }

    def exposition(self) -> bytes:
        """The text that Prometheus reads."""
        text: bytes = generate_latest(self._registry)
        return text
