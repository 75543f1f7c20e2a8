"""OpenTelemetry (extra `tracing`): a span for each request, within it its wait and its blocks.

Spans are made when a request ends, from times that were taken anyway: nothing is done for tracing
while it runs. They continue the client's trace where it sent a W3C traceparent, and are sampled as
that says; otherwise by `sample`. A thread of the SDK sends them.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any

from tenantdl.daemon.observe.ended import Ended
from tenantdl.errors import UserError
from tenantdl.load.workload import ObserveSection

_SAMPLED = 1


class Tracer:
    """Sends spans to an OTLP endpoint, or wherever `exporter` does."""

    def __init__(self, endpoint: str, sample: float, *, exporter: Any = None) -> None:
        """`endpoint`: as http://collector:4318/v1/traces. Raises UserError without the extra."""
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
            from opentelemetry.trace.propagation.tracecontext import (
                TraceContextTextMapPropagator,
            )
        except ImportError as error:
            raise UserError(f"traces need: pip install 'tenantdl[tracing]' ({error})") from error
        exporter = exporter or OTLPSpanExporter(endpoint=endpoint)
        self._provider = TracerProvider(resource=Resource.create({"service.name": "tenantdl"}))
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("tenantdl")
        self._extract: Callable[..., Any] = TraceContextTextMapPropagator().extract
        self._sample = sample
        self._unix = time.time_ns() - time.monotonic_ns()
        self._random = random.Random()

    def request(self, ended: Ended) -> None:
        """Spans of a request that has ended, if it is sampled."""
        live = ended.live
        parent = live.origin.traceparent
        if not (_is_sampled(parent) if parent else self._random.random() < self._sample):
            return
        from opentelemetry import trace

        context = self._extract({"traceparent": parent}) if parent else None
        span = self._tracer.start_span(
            f"infer {live.model}",
            context=context,
            kind=trace.SpanKind.SERVER,
            start_time=live.arrived + self._unix,
            attributes=_attributes(ended),
        )
        inside = trace.set_span_in_context(span)
        first = ended.ran.blocks[0].start if ended.ran.blocks else ended.at
        wait = self._tracer.start_span(
            "queue", context=inside, start_time=live.arrived + self._unix
        )
        wait.end(max(live.arrived, first) + self._unix)
        for block in ended.ran.blocks:
            child = self._tracer.start_span(
                f"block {block.begin}:{block.end}",
                context=inside,
                start_time=block.start + self._unix,
                attributes={
                    "tenantdl.cores": list(block.cores),
                    "tenantdl.lane": block.lane,
                    "tenantdl.variant": block.variant,
                },
            )
            child.end(block.start + block.elapsed + self._unix)
        if ended.reason:
            span.set_status(trace.StatusCode.ERROR, ended.reason.value)
        span.end(ended.at + self._unix)

    def close(self) -> None:
        """Send what is left, for a moment at most."""
        self._provider.force_flush(2000)
        self._provider.shutdown()


def open_tracer(options: ObserveSection) -> Tracer | None:
    """A tracer, if the config names where spans go. Raises UserError without the extra."""
    return Tracer(options.otlp, options.sample) if options.otlp else None


def _is_sampled(traceparent: str) -> bool:
    flags = traceparent.rpartition("-")[2]
    try:
        return bool(int(flags, 16) & _SAMPLED)
    except ValueError:
        return False


def _attributes(ended: Ended) -> dict[str, Any]:
    live = ended.live
    return {
        "tenantdl.tenant": live.tenant,
        "tenantdl.model": live.model,
        "tenantdl.request": ended.request,
        "tenantdl.request_id": live.origin.id,
        "tenantdl.outcome": ended.reason.value if ended.reason else "ok",
        "tenantdl.batch": ended.ran.size or 1,
        "tenantdl.late": ended.at > live.deadline,
    }
