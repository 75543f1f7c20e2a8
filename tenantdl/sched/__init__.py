"""The scheduler: pure functions of events and time, with every policy beside its baselines.

messages    events in, commands out            scheduler  `Scheduler.handle`, `next_wakeup`
config      lanes, models, tenants, policy     policies/  who runs next, where, in which variant
request     states and their one table         placing    the moves that policies are made of
book        all state (queue, state, cores)    costs      segment × variant × cores → Ns, online
served      models and tenants, which change   demand     how many cores something needs
check       its invariants
journal     JSON lines of all this, replayed   batching/  the same kind of machine for batches
"""
