"""What the engine keeps for each tenant, and for each model: promises, counts, shared memory."""

from __future__ import annotations

from dataclasses import dataclass

from tenantdl.exec.program_set import ProgramSet
from tenantdl.load.workload import TenantSection
from tenantdl.sched.messages import Reason
from tenantdl.units import SECOND, Ns, from_ms

# How long a request may wait unless its tenant says otherwise.
_TIMEOUT_FACTOR, _TIMEOUT_LEAST = 10, Ns(SECOND)


@dataclass(slots=True)
class Bucket:
    """A token bucket: one request every `gap`, up to `burst` at once. `full_at`: when it will be
    full again if nobody comes."""

    gap: Ns
    burst: int
    full_at: int = 0

    def take(self, now: Ns) -> bool:
        """Whether a request may come in now; then it has."""
        full_at = max(self.full_at, now) + self.gap
        if full_at - now > self.gap * self.burst:
            return False
        self.full_at = full_at
        return True


@dataclass(slots=True)
class ServedTenant:
    """A tenant's terms, and how many of its requests are inside."""

    qos: Ns
    timeout: Ns
    priority: int
    queue_max: int
    bucket: Bucket | None = None
    count: int = 0

    def refusal(self, now: Ns) -> Reason | None:
        """Why one more request is refused now, None if it is not; then it counts for the rate."""
        if self.count >= self.queue_max:
            return Reason.QUEUE_FULL
        if self.bucket and not self.bucket.take(now):
            return Reason.RATE_EXCEEDED
        return None


@dataclass(slots=True)
class Memory:
    """A model's programs. `free`: slots not in use; the one used last, with warm pages, on top."""

    programs: ProgramSet
    free: list[int]

    @property
    def used(self) -> int:
        """Requests that hold a slot."""
        return self.programs.layout.slots - len(self.free)


def open_tenant(section: TenantSection) -> ServedTenant:
    """A fresh entry for a tenant."""
    return ServedTenant(
        qos=from_ms(section.qos_ms),
        timeout=_timeout(section),
        priority=section.priority,
        queue_max=section.queue_max,
        bucket=_bucket(section),
    )


def _bucket(section: TenantSection) -> Bucket | None:
    if section.rate_max is None:
        return None
    return Bucket(Ns(round(SECOND / section.rate_max)), section.burst)


def open_memory(programs: ProgramSet) -> Memory:
    """A model's memory with all slots free."""
    return Memory(programs, list(range(programs.layout.slots)))


def _timeout(tenant: TenantSection) -> Ns:
    if tenant.timeout_ms is not None:
        return from_ms(tenant.timeout_ms)
    return max(Ns(_TIMEOUT_FACTOR * from_ms(tenant.qos_ms)), _TIMEOUT_LEAST)
