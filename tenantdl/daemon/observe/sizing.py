"""How many cores the last minute's load wants, and why, in a sentence (Symphony §4's rules)."""

from __future__ import annotations

from collections.abc import Sequence

from tenantdl.load.status import Advice, TenantStatus
from tenantdl.sched.batching.advice import BAD_MAX, advice

# Fewer requests in the window say nothing.
_ENDED_MIN = 50
# Where cores are less busy than this, something else than a lack of them makes requests late.
_BUSY_MIN = 0.3


def advise(tenants: Sequence[TenantStatus], cores: int, busy: float) -> Advice:
    """Advice for `cores` cores that were `busy` (a share) on average.

    Tenants whose model needs longer than its target even on an empty machine are named, and left
    out: more cores do not help them.
    """
    hopeless = [t.name for t in tenants if t.alone_ms is not None and t.alone_ms > t.qos_ms]
    counted = [tenant for tenant in tenants if tenant.name not in hopeless]
    ended = sum(tenant.answered + sum(tenant.refused.values()) for tenant in counted)
    note = f" {', '.join(hopeless)}: the model alone takes longer than the target." * bool(hopeless)
    if ended < _ENDED_MIN:
        return Advice(cores=cores, wanted=cores, why=f"Too few requests to tell.{note}")
    bad = 1 - sum(tenant.in_time for tenant in counted) / ended
    elsewhere = bad > BAD_MAX and busy < _BUSY_MIN
    wanted = cores if elsewhere else cores + advice(cores, bad, max(0.0, 1 - busy))
    shares = f"{100 * bad:.1f} % late or refused, cores {100 * busy:.0f} % busy"
    if elsewhere:
        why = f"Not for lack of cores: {shares}. Who else is on them? (tenantdl doctor)"
    elif wanted > cores:
        why = f"Add {wanted - cores}: {shares}."
    elif wanted < cores:
        why = f"{cores - wanted} could go: {shares}."
    else:
        why = f"It fits: {shares}."
    return Advice(cores=cores, wanted=wanted, why=why + note)
