"""A workload with two lives: simulated on published profiles, or served from its bundles.

Profiles were published for one machine, with targets for it; the same models on another machine
need other targets, and are asked for at other rates. A workload file gives both.
"""

from __future__ import annotations

import msgspec

from tenantdl.load.workload import Workload


def published(workload: Workload) -> Workload:
    """`workload` as it is simulated on published profiles: with their targets, shares and rate."""
    replace = msgspec.structs.replace
    tenants = tuple(
        replace(t, qos_ms=t.profile_qos_ms or t.qos_ms, share=t.profile_share or t.share)
        if t.profile
        else t
        for t in workload.tenant
    )
    rate = workload.load.profile_rate or workload.load.rate
    return replace(workload, tenant=tenants, load=replace(workload.load, rate=rate))


def on_bundles(workload: Workload) -> Workload:
    """`workload` as it is served: published profiles are left out."""
    tenants = tuple(msgspec.structs.replace(t, profile=None) for t in workload.tenant)
    return msgspec.structs.replace(workload, tenant=tenants)
