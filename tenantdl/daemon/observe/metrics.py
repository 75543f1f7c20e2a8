"""What Prometheus scrapes. Requests have Triton's names (`nv_inference_*`, durations in µs) with a
tenant label, so that dashboards made for Triton work; the rest is `tenantdl_*`, in seconds."""

from __future__ import annotations

import resource
from bisect import bisect_left
from collections.abc import Iterator, Mapping

from tenantdl.daemon.observe.exposition import Family, text
from tenantdl.daemon.observe.machine import RATIO_BOUNDS, Key, MachineUse
from tenantdl.daemon.statistics import LATENCY_BOUNDS_S, Served, Statistics
from tenantdl.ids import CoreId
from tenantdl.load.status import Status
from tenantdl.sched.state import Counts
from tenantdl.units import US, Ns, to_seconds

BATCH_BOUNDS = (1, 2, 4, 8, 16, 32, 64)
# Triton's label `reason` for our reasons; what is not here is OTHER.
_REASONS = {
    "queue_full": "REJECTED",
    "deadline_infeasible": "REJECTED",
    "expired": "REJECTED",
    "cancelled": "CANCELED",
    "execution_failed": "BACKEND",
    "lane_lost": "BACKEND",
}
_DURATIONS = {
    "request": ("success", "From arrival to answer"),
    "queue": ("queue", "Waiting for the first block"),
    "compute_input": ("compute_input", "Reading inputs"),
    "compute_infer": ("compute_infer", "In blocks"),
    "compute_output": ("compute_output", "Writing answers"),
}


# Each comes with the seconds that the lane stood still on these occasions.
_CONFLICTS = "Launches with fewer cores than wanted, and the seconds in their blocks"
_RESIZES = "Changes of a request's core group between its blocks"
_MIGRATIONS = "Moves of a request to another lane"
_HANDOVERS = "Orders to idle lanes"
_BOUNDARIES = "Other passages from block to block"


def metrics(
    status: Status,
    statistics: Statistics,
    use: MachineUse,
    counts: Counts,
    pending: Mapping[Key, int],
) -> bytes:
    """The whole page. `pending`: requests that no lane was told to run yet."""
    return text(
        [
            *_triton(statistics, use, pending),
            *_tenants(statistics),
            *_lately(status),
            *_scheduler(counts),
            *_machine(status, use),
            *_models(use),
        ]
    )


def _triton(
    statistics: Statistics, use: MachineUse, pending: Mapping[Key, int]
) -> Iterator[Family]:
    served = statistics.served.items()

    def labels(model: str, version: str, tenant: str) -> dict[str, object]:
        return {"model": model, "version": version, "tenant": tenant}

    success = Family("nv_inference_request_success", "counter", "Requests answered")
    failure = Family("nv_inference_request_failure", "counter", "Requests refused or failed")
    count = Family("nv_inference_count", "counter", "Inferences done")
    executions = Family("nv_inference_exec_count", "counter", "Model executions")
    for key, numbers in served:
        own, done = labels(*key), numbers.parts["success"].count
        success.add(done, **own)
        count.add(done, **own)
        executions.add(sum(use.batches[key].values()), **own)
        for reason, refused in _by_reason(numbers).items():
            failure.add(refused, **own, reason=reason)
    waiting = Family("nv_inference_pending_request_count", "gauge", "Requests not launched yet")
    for key in sorted(statistics.served.keys() | pending.keys()):
        waiting.add(pending.get(key, 0), **labels(*key))
    yield from (success, failure, count, executions, waiting)
    for name, (part, what) in _DURATIONS.items():
        family = Family(f"nv_inference_{name}_duration_us", "counter", f"{what}, cumulative, in us")
        for key, numbers in served:
            family.add(numbers.parts[part].ns // US, **labels(*key))
        yield family


def _by_reason(served: Served) -> dict[str, int]:
    found = dict.fromkeys(("REJECTED", "CANCELED", "BACKEND", "OTHER"), 0)
    for reason, count in served.refused.items():
        found[_REASONS.get(reason, "OTHER")] += count
    return found


def _tenants(statistics: Statistics) -> Iterator[Family]:
    requests = Family(
        "tenantdl_requests_total", "counter", "Requests by outcome: ok, or why it was refused"
    )
    in_time = Family("tenantdl_qos_met_total", "counter", "Requests answered in time")
    latency = Family("tenantdl_latency_seconds", "histogram", "From arrival to the answer")
    for (model, version, tenant), served in statistics.served.items():
        labels = {"tenant": tenant, "model": model, "version": version}
        requests.add(served.parts["success"].count, **labels, outcome="ok")
        for reason, count in sorted(served.refused.items()):
            requests.add(count, **labels, outcome=reason)
        in_time.add(served.in_time, **labels)
        total = to_seconds(served.parts["success"].ns)
        latency.histogram(LATENCY_BOUNDS_S, served.latencies, total, **labels)
    yield from (requests, in_time, latency)


def _lately(status: Status) -> Iterator[Family]:
    """What /status says of the last minute, for alerts that need no query language."""
    target = Family("tenantdl_qos_target_seconds", "gauge", "Promised latency")
    queue = Family("tenantdl_queue_length", "gauge", "Requests inside, waiting or running")
    attainment = Family(
        "tenantdl_qos_attainment", "gauge", "Share of the last minute's requests in time"
    )
    share = Family("tenantdl_core_share", "gauge", "Of all cores' time in the last minute")
    for tenant in status.tenants:
        target.add(tenant.qos_ms / 1000, tenant=tenant.name)
        queue.add(tenant.queue, tenant=tenant.name)
        share.add(tenant.core_share, tenant=tenant.name)
        if tenant.attainment is not None:
            attainment.add(tenant.attainment, tenant=tenant.name)
    wanted = Family("tenantdl_cores_wanted", "gauge", "Autoscale advice: cores for this load")
    wanted.add(status.advice.wanted)
    yield from (target, queue, attainment, share, wanted)


def _scheduler(counts: Counts) -> Iterator[Family]:
    launches = Family("tenantdl_launches_total", "counter", "Launches that lanes have begun")
    launches.add(counts.launches)
    alarms = Family(
        "tenantdl_interference_alarms_total", "counter", "Tables of slowdowns found far off"
    )
    alarms.add(counts.alarms)
    yield from (launches, alarms)
    for name, what, times, ns in (
        ("conflicts", _CONFLICTS, counts.conflicts, counts.conflicts_ns),
        ("resizes", _RESIZES, counts.resizes, counts.resizes_ns),
        ("migrations", _MIGRATIONS, counts.migrations, counts.migrations_ns),
        ("handovers", _HANDOVERS, counts.handovers, counts.handovers_ns),
        ("boundaries", _BOUNDARIES, counts.boundaries, counts.boundaries_ns),
    ):
        family = Family(f"tenantdl_{name}_total", "counter", what)
        family.add(times)
        seconds = Family(f"tenantdl_{name}_seconds_total", "counter", what)
        seconds.add(to_seconds(Ns(ns)))
        yield from (family, seconds)


def _machine(status: Status, use: MachineUse) -> Iterator[Family]:
    cores = Family("tenantdl_core_busy_seconds_total", "counter", "Time in blocks, by core")
    for shown in status.cores:
        cores.add(to_seconds(use.core_busy[CoreId(shown.core)]), core=shown.core)
    tenants = Family("tenantdl_tenant_core_seconds_total", "counter", "Core time used, by tenant")
    for tenant, busy in use.tenant_busy.items():
        tenants.add(to_seconds(busy), tenant=tenant)
    ready = Family("tenantdl_lane_ready", "gauge", "Whether the lane serves")
    lost = Family("tenantdl_lane_lost_total", "counter", "Deaths of the lane's process")
    for lane in status.lanes:
        ready.add(lane.ready, lane=lane.lane)
        lost.add(lane.lost, lane=lane.lane)
    memory = Family("tenantdl_memory_peak_bytes", "gauge", "Peak resident size of the daemon")
    memory.add(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
    yield from (cores, tenants, ready, lost, memory)


def _models(use: MachineUse) -> Iterator[Family]:
    variants = Family("tenantdl_variant_blocks_total", "counter", "Blocks by variant")
    ratios = Family(
        "tenantdl_block_actual_over_expected", "histogram", "Time of a block over its prediction"
    )
    actual = Family("tenantdl_block_actual_seconds_total", "counter", "Time of predicted blocks")
    expected = Family("tenantdl_block_expected_seconds_total", "counter", "Predicted for them")
    for (model, version), blocks in use.models.items():
        labels = {"model": model, "version": version}
        for variant, count in sorted(blocks.variants.items()):
            variants.add(count, **labels, variant=variant)
        ratios.histogram(RATIO_BOUNDS, blocks.ratios, blocks.ratio_sum, **labels)
        actual.add(to_seconds(blocks.actual), **labels)
        expected.add(to_seconds(blocks.expected), **labels)
    sizes = Family("tenantdl_batch_size", "histogram", "Requests that ran together")
    for (model, version, tenant), batches in use.batches.items():
        counts = [0] * (len(BATCH_BOUNDS) + 1)
        for size, count in batches.items():
            counts[bisect_left(BATCH_BOUNDS, size)] += count
        total = sum(size * count for size, count in batches.items())
        sizes.histogram(BATCH_BOUNDS, counts, total, model=model, version=version, tenant=tenant)
    yield from (variants, ratios, actual, expected, sizes)
