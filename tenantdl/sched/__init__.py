"""The scheduler: pure functions of events and time, with every policy beside its baselines.

messages    events in, commands out            scheduler  `Scheduler.handle`, `next_wakeup`
config      lanes, models, tenants, policy     policies/  who runs next, where, in which variant
request     states and their one table         placing    the moves that policies are made of
book        all state (queue, state, cores)    costs      segment × variant × cores → Ns, online
served      models and tenants, which change   demand     how many cores something needs
check       its invariants
journal     JSON lines of all this, replayed   batching/  the same kind of machine for batches
"""

from __future__ import annotations

try:  # the same modules compiled by mypyc, where `scripts/compile_scheduler.py` has made them
    from tenantdl_compiled import folder_of
except ImportError:
    pass
else:
    __path__[:0] = folder_of(__name__, __path__)
