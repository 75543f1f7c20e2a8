"""What the engine keeps for each tenant: promises, and slots of shared memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tenantdl.daemon.catalogue import Catalogue
from tenantdl.exec.lane_memory import Slots
from tenantdl.ids import TenantId
from tenantdl.load.workload import TenantSection
from tenantdl.units import SECOND, Ns, from_ms

# How long a request may wait unless its tenant says otherwise.
_TIMEOUT_FACTOR, _TIMEOUT_LEAST = 10, Ns(SECOND)


@dataclass(slots=True)
class ServedTenant:
    """`first_program`: the number that lanes know its model's first plan by. `free`: slots not in
    use, the one used last on top (its pages are warm)."""

    qos: Ns
    timeout: Ns
    priority: int
    slots: Slots
    first_program: int
    capacity: int
    free: list[int]

    def inside(self) -> int:
        """Requests that hold a slot."""
        return self.capacity - len(self.free)


def open_tenants(catalogue: Catalogue, slots: Sequence[Slots]) -> dict[TenantId, ServedTenant]:
    """A fresh entry for every tenant; `slots` in the catalogue's order."""
    programs = catalogue.first_programs()
    return {
        name: ServedTenant(
            qos=from_ms(section.qos_ms),
            timeout=_timeout(section),
            priority=section.priority,
            slots=slots[index],
            first_program=programs[index],
            capacity=section.queue_max,
            free=list(range(section.queue_max)),
        )
        for index, (name, section) in enumerate(catalogue.tenants.items())
    }


def _timeout(tenant: TenantSection) -> Ns:
    if tenant.timeout_ms is not None:
        return from_ms(tenant.timeout_ms)
    return max(Ns(_TIMEOUT_FACTOR * from_ms(tenant.qos_ms)), _TIMEOUT_LEAST)
