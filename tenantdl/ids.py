"""Ids are distinct types, so that a core is never passed where a tenant is meant."""

from __future__ import annotations

from typing import NewType

TenantId = NewType("TenantId", str)
ModelId = NewType("ModelId", str)
RequestId = NewType("RequestId", int)
SegmentId = NewType("SegmentId", int)
LaneId = NewType("LaneId", int)
CoreId = NewType("CoreId", int)
