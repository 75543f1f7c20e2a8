"""What the scheduler has been told of models and tenants, as it changes."""

from __future__ import annotations

from collections.abc import Iterable

from tenantdl.daemon.stages import ServedApplication
from tenantdl.ids import CoreId, ModelId, TenantId
from tenantdl.sched.config import ModelSpec, SchedulerConfig, TenantSpec
from tenantdl.sched.messages import (
    Event,
    ModelAdded,
    ModelRemoved,
    TenantDeclared,
    TenantRemoved,
)
from tenantdl.units import from_ms


class Known:
    """The config at the start and what came and went since. Applications, of which the scheduler
    knows the stages alone, are shown beside tenants."""

    def __init__(
        self, config: SchedulerConfig, applications: Iterable[ServedApplication] = ()
    ) -> None:
        self._applications = [_as_tenant(application) for application in applications]
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

    def shown(self) -> list[TenantSpec]:
        """All who were promised something."""
        return [*self.tenants.values(), *self._applications]


def _as_tenant(application: ServedApplication) -> TenantSpec:
    section = application.section
    name = TenantId(application.name)
    return TenantSpec(name, section.queue_max, 1, model=application.id, qos=from_ms(section.slo_ms))
