"""What the scheduler has been told of models and tenants, as it changes."""

from __future__ import annotations

from tenantdl.ids import CoreId, ModelId, TenantId
from tenantdl.sched.config import ModelSpec, SchedulerConfig, TenantSpec
from tenantdl.sched.messages import (
    Event,
    ModelAdded,
    ModelRemoved,
    TenantDeclared,
    TenantRemoved,
)


class Known:
    """The config at the start and what came and went since."""

    def __init__(self, config: SchedulerConfig) -> None:
        self.policy = config.policy
        self.lanes = config.lanes
        self.models: dict[ModelId, ModelSpec] = {spec.model: spec for spec in config.models}
        self.tenants: dict[TenantId, TenantSpec] = {spec.tenant: spec for spec in config.tenants}

    def note(self, event: Event) -> None:
        """Take in what `event` says."""
        match event:
            case ModelAdded():
                self.models[event.spec.model] = event.spec
            case ModelRemoved():
                self.models.pop(event.model, None)
            case TenantDeclared():
                self.tenants[event.spec.tenant] = event.spec
            case TenantRemoved():
                self.tenants.pop(event.tenant, None)
            case _:
                pass

    def cores(self) -> list[CoreId]:
        """The cores of all lanes."""
        return [core for lane in self.lanes for core in lane.cores]
