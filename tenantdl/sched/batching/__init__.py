"""Batching as a pure scheduler: which requests run together, when, and on which slot.

messages    events in, commands out            config        queues, slots, network, policy
batcher     Symphony: `Batcher.handle`          orloj         Orloj: `Orloj.handle`
policies    when to start, what to drop         score         what waiting costs, in closed form
queue       requests of one queue, candidate    ranking       the highest score: argmax, hulls
order       which ready candidate goes first    distribution  run times, of the longest of a batch
slots       lowest-numbered idle slot           learn         run times online, sliding window
latency     l(b); analytic target and bounds    tournament    best of n keys, O(log n) an update
times       l(b) as a quantile of those times
rate        arrival rate                        advice        how many slots more or fewer
pace        a batcher in real time, on slots that only keep time

Symphony is arXiv 2308.07470 ("deferred batch scheduling"), Orloj arXiv 2209.00159 (reconstructed
from its text). A *slot* is an ordered core group that takes one batch at a time; a *queue* holds
requests that may share a batch: those of a model, or of one of its shape buckets.
"""

from __future__ import annotations

try:  # the same modules compiled by mypyc, where `scripts/compile_scheduler.py` has made them
    from tenantdl_compiled import folder_of
except ImportError:
    pass
else:
    __path__[:0] = folder_of(__name__, __path__)
