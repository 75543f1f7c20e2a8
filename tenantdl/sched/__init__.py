"""The scheduler: pure functions of events and time, with every policy beside its baselines.

messages    events in, commands out            scheduler  `Scheduler.handle`, `next_wakeup`
config      lanes, models, tenants, policy     policies   who runs next on a lane: functions
request     states and their one table         estimate   segment costs online, ends of blocks
book        all state; check: its invariants   journal    JSON lines of all this, and their replay
"""
