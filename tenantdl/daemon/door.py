"""Who may send the rest of a large request, while there are many.

What reads bodies is shared by all: of too many at once all are late, and what is read in vain
takes time from what runs. So while many are being read, or are inside, a request is judged by its
head. It may come in if it could be in time, with something to spare, after all that is being read
and with all that is inside (`sched.admission`), or if its tenant has less in work than its portion
of the cores does in half its target: the rest is for the bodies.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping

from tenantdl.daemon.tenants import ServedTenant
from tenantdl.ids import ModelId, TenantId
from tenantdl.sched.admission import core_time, fits, in_time
from tenantdl.sched.book import Book
from tenantdl.sched.costs import UNDISTURBED
from tenantdl.units import Ns

# Bodies that are read, and requests that are inside, for a core, before anyone is judged; and what
# is large.
_MANY, _FULL = 2, 16
# Of its target, in 1/1000, what a request has to fit into with all that is inside: work takes
# longer beside the reading of bodies, and who starts as late as can be needs more cores.
_FITS = 600
LARGE_BYTES = 64 * 1024


class Door:
    """Counts what is being read, by tenant and model."""

    def __init__(self, book: Book, tenants: Mapping[TenantId, ServedTenant]) -> None:
        """`book`: what the scheduler knows; `tenants`: all that are served."""
        self._book, self._tenants = book, tenants
        self._coming: Counter[tuple[TenantId, ModelId]] = Counter()
        self._count = 0

    def enter(self, tenant: TenantId, model: ModelId) -> bool:
        """Whether a body may be read now; then `leave` when it has come, or will not."""
        if self._crowded() and not self._admits(tenant, model):
            return False
        self._coming[tenant, model] += 1
        self._count += 1
        return True

    def leave(self, tenant: TenantId, model: ModelId) -> None:
        """One body less."""
        self._coming[tenant, model] -= 1
        self._count -= 1
        if not self._coming[tenant, model]:
            del self._coming[tenant, model]

    def _crowded(self) -> bool:
        book = self._book
        return self._count >= _MANY * book.cores_max or len(book.requests) > _FULL * book.cores_max

    def _admits(self, tenant: TenantId, model: ModelId) -> bool:
        book = self._book
        if model not in book.models:  # an application, or one that is just being replaced
            return True
        target = self._tenants[tenant].qos
        costs = book.models[model].costs[0]
        now = Ns(time.monotonic_ns())
        inside = in_time(book, now)
        work = core_time(costs) + self._work(tenant)
        work += sum(core_time(r.costs, r.progress) for r in inside if r.tenant == tenant)
        present = {t for t, _ in self._coming} | {r.tenant for r in inside} | {tenant}
        portion = book.tenants[tenant].spec.share or UNDISTURBED // len(present)
        if 2 * work * UNDISTURBED <= target * book.cores_max * portion:
            return True
        due = Ns(now + target * _FITS // UNDISTURBED)
        return fits(book, inside, costs, due, now, self._work())

    def _work(self, tenant: TenantId | None = None) -> int:
        """Core time (ns) of the requests being read: of `tenant`, of all."""
        models = self._book.models
        return sum(
            core_time(models[model].costs[0]) * count
            for (whose, model), count in self._coming.items()
            if model in models and tenant in (None, whose)
        )
