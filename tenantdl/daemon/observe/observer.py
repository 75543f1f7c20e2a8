"""The one object that the engine tells what it tells its journal; whoever asks, asks here."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence

from tenantdl import __version__
from tenantdl.daemon.catalogue import Catalogue
from tenantdl.daemon.observe.chrome import chrome_trace
from tenantdl.daemon.observe.ended import Origin
from tenantdl.daemon.observe.known import Known
from tenantdl.daemon.observe.logs import log_request
from tenantdl.daemon.observe.machine import MachineUse, ModelBlocks
from tenantdl.daemon.observe.metrics import metrics
from tenantdl.daemon.observe.sizing import advise
from tenantdl.daemon.observe.timeline import Timeline
from tenantdl.daemon.observe.tracing import Tracer, open_tracer
from tenantdl.daemon.observe.window import SECONDS, Second, bound, percentile, total
from tenantdl.daemon.stages import ServedApplication
from tenantdl.daemon.statistics import Statistics
from tenantdl.ids import CoreId, ModelId, RequestId
from tenantdl.load.status import (
    FORMAT,
    CoreStatus,
    LaneStatus,
    ModelStatus,
    SchedulerStatus,
    Status,
    TenantStatus,
)
from tenantdl.load.workload import Workload
from tenantdl.sched.config import SchedulerConfig, TenantSpec
from tenantdl.sched.messages import (
    BlockFinished,
    Command,
    Event,
    LaunchStarted,
    RequestArrived,
)
from tenantdl.sched.state import Counts
from tenantdl.units import SECOND, Ns, to_ms, to_seconds

_log = logging.getLogger(__name__)
# A page that asks every second does not get more than it can draw.
_BLOCKS_MAX = 8192
# Events that are taken in later, and how many at most.
_FREQUENT = (RequestArrived, LaunchStarted, BlockFinished)
_HEARD_MAX = 256


class Observer:
    """Sees every event and command of a scheduler; keeps bounded memory; never raises at `note`."""

    def __init__(
        self,
        config: SchedulerConfig,
        statistics: Statistics,
        counts: Callable[[], Counts],
        *,
        name: str = "",
        started: Ns,
        applications: Iterable[ServedApplication] = (),
        tracer: Tracer | None = None,
    ) -> None:
        """`counts`: the scheduler's; `name`: the workload's; `started`: now; `tracer`: for spans of
        requests."""
        self.known = Known(config, applications)
        self._counts = counts
        self._name = name
        self._started = started
        self._watching = True
        self._heard: list[tuple[Ns, Event, Iterable[Command], Ns | None]] = []
        self.statistics = statistics
        self.timeline = Timeline(keep_blocks=tracer is not None)
        self._tracer = tracer
        self.use = MachineUse()

    def note(self, now: Ns, event: Event, commands: Iterable[Command]) -> None:
        """The scheduler was told `event` at `now` and said `commands`. Taken in by `settle`:
        whoever waits for an answer need not wait for this."""
        expected = self._counts().expected if isinstance(event, BlockFinished) else None
        self._heard.append((now, event, commands, expected))
        if len(self._heard) >= _HEARD_MAX or not isinstance(event, _FREQUENT):
            self.settle()

    def settle(self) -> None:
        """Take in what was noted."""
        heard, self._heard = self._heard, []
        for each in heard:
            self._take(*each)

    def _take(
        self, now: Ns, event: Event, commands: Iterable[Command], expected: Ns | None
    ) -> None:
        if not self._watching:
            return
        try:
            block = self.timeline.note(now, event, commands, expected)
            if block:
                self.use.add(block, self.statistics.label(block.model), now)
            else:
                self.use.lanes(event)
                self.known.note(event)
            for ended in self.timeline.ended:
                self.use.ran(ended, self.statistics.label(ended.live.model))
                log_request(ended)
                if self._tracer:
                    self._tracer.request(ended)
        except Exception:
            self._watching = False
            _log.exception("watching has ended; serving goes on")

    def expect(self, request: RequestId, origin: Origin) -> None:
        """`request` is about to arrive, from `origin`."""
        if any(origin):
            self.timeline.origins[request] = origin

    def close(self) -> None:
        """Nothing more comes."""
        self.settle()
        if self._tracer:
            self._tracer.close()

    def trace(self) -> Iterator[bytes]:
        """The blocks in memory as a Chrome trace, piece by piece."""
        self.settle()
        return chrome_trace(self.timeline.blocks())

    def metrics(self, now: Ns, *, ready: bool) -> bytes:
        """The page for Prometheus."""
        self.settle()
        pending = {
            (*self.statistics.label(model), tenant): count
            for (model, tenant), count in self.timeline.pending().items()
        }
        status = self.status(now, ready=ready)
        return metrics(status, self.statistics, self.use, self._counts(), pending)

    def status(self, now: Ns, *, ready: bool, since: int | None = None) -> Status:
        """Everything about the last minute; blocks from number `since` on (None: no blocks)."""
        self.settle()
        window = min(to_seconds(now - self._started), float(SECONDS))
        cores = tuple(self._core(core, now, window) for core in self.known.cores())
        tenants = tuple(self._tenant(spec, now, window, len(cores)) for spec in self.known.shown())
        busy = sum(core.busy for core in cores) / max(1, len(cores))
        counts = self._counts()
        newest = self.timeline.count - _BLOCKS_MAX
        return Status(
            format=FORMAT,
            version=__version__,
            workload=self._name,
            pid=os.getpid(),
            ready=ready,
            uptime_s=to_seconds(now - self._started),
            window_s=window,
            now=now,
            tenants=tenants,
            models=self._models(),
            lanes=tuple(
                LaneStatus(
                    lane=spec.lane,
                    cores=spec.cores,
                    ready=spec.lane in self.use.ready,
                    lost=self.use.lost[spec.lane],
                )
                for spec in self.known.lanes
            ),
            cores=cores,
            scheduler=SchedulerStatus(
                policy=self.known.policy,
                launches=counts.launches,
                conflicts=counts.conflicts,
                resizes=counts.resizes,
                migrations=counts.migrations,
                blocks=self.timeline.count,
                batches=self.timeline.batches,
                batched=self.timeline.batched,
            ),
            advice=advise(tenants, len(cores), busy),
            blocks=() if since is None else tuple(self.timeline.blocks(max(since, newest))),
            next_block=self.timeline.count,
        )

    def _core(self, core: CoreId, now: Ns, window_s: float) -> CoreStatus:
        busy = total(self.use.core_window[core].seconds(now)).busy
        return CoreStatus(core=core, busy=min(1.0, busy / max(1.0, window_s * SECOND)))

    def _tenant(self, spec: TenantSpec, now: Ns, window_s: float, cores: int) -> TenantStatus:
        seconds = self.statistics.windows[spec.tenant].seconds(now)
        own = total(seconds)
        busy = total(self.use.tenant_window[spec.tenant].seconds(now)).busy
        ended = own.answered + sum(own.refused.values())
        tails = [percentile(own.latencies, share) for share in (0.5, 0.95, 0.99)]
        p50, p95, p99 = (None if tail is None else to_ms(tail) for tail in tails)
        return TenantStatus(
            name=spec.tenant,
            models=self._models_of(spec),
            qos_ms=to_ms(spec.qos),
            queue=self.statistics.queues().get(spec.tenant, 0),
            queue_max=spec.queue_max,
            answered=own.answered,
            in_time=own.in_time,
            refused=dict(sorted(own.refused.items())),
            attainment=own.in_time / ended if ended else None,
            rate=ended / max(1.0, window_s),
            p50_ms=p50,
            p95_ms=p95,
            p99_ms=p99,
            queue_ms=to_ms(own.queued) / own.answered if own.answered else None,
            compute_ms=to_ms(own.computed) / own.answered if own.answered else None,
            alone_ms=self._alone_ms(spec),
            core_share=min(1.0, busy / max(1.0, window_s * SECOND * cores)),
            histogram=tuple((to_ms(bound(b)), n) for b, n in sorted(own.latencies.items())),
            seconds=_by_second(seconds, now),
        )

    def _alone_ms(self, spec: TenantSpec) -> float | None:
        used = self._models_of(spec)
        models = [m for m in self.known.models.values() if self._called(m.model) in used]
        plans = (plan for model in models for plan in model.plans)
        times = [sum(costs) for p in plans for v in p.variants for costs in v.costs]
        return to_ms(min(times)) if times else None

    def _models_of(self, spec: TenantSpec) -> tuple[str, ...]:
        used = {model for model, _, tenant in self.statistics.served if tenant == spec.tenant}
        return tuple(sorted(used | ({self._called(spec.model)} if spec.model else set())))

    def _called(self, model: ModelId) -> str:
        return self.statistics.label(model)[0]

    def _models(self) -> tuple[ModelStatus, ...]:
        none = ModelBlocks()
        labels = dict.fromkeys(self.statistics.label(model) for model in self.known.models)
        found = [(label, self.use.models.get(label, none)) for label in labels]
        return tuple(
            ModelStatus(
                name=name,
                version=version,
                blocks=sum(blocks.variants.values()),
                variants=dict(sorted(blocks.variants.items())),
                actual_over_expected=blocks.actual / blocks.expected if blocks.expected else None,
            )
            for (name, version), blocks in found
        )


def _by_second(seconds: Sequence[Second], now: Ns) -> tuple[tuple[int, int], ...]:
    known = {second.at: second for second in seconds}
    last = now // SECOND
    return tuple(
        (second.answered + sum(second.refused.values()), second.in_time)
        for second in (known.get(at, Second(at)) for at in range(last - SECONDS + 1, last + 1))
    )


def open_observer(
    workload: Workload,
    config: SchedulerConfig,
    catalogue: Catalogue,
    statistics: Statistics,
    counts: Callable[[], Counts],
) -> Observer:
    """The observer of a daemon that starts now. Raises UserError for traces without the extra."""
    return Observer(
        config,
        statistics,
        counts,
        name=workload.name,
        started=Ns(time.monotonic_ns()),
        applications=catalogue.applications.values(),
        tracer=open_tracer(workload.observe),
    )
