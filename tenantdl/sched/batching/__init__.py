"""Batching as a pure scheduler: which requests run together, when, and on which slot.

messages    events in, commands out             config        queues, slots, network, policy
batcher     Symphony: `Batcher.handle`          policies      when to start, what to drop, by name
queue       requests of one queue, candidate    tournament    best of n keys, O(log n) an update
order       which ready candidate goes first    slots         lowest-numbered idle slot
latency     l(b); analytic target and bounds    advice        how many slots more or fewer

Symphony is arXiv 2308.07470 ("deferred batch scheduling"). A *slot* is an ordered core group that
takes one batch at a time; a *queue* holds requests that may share a batch: those of a model, or of
one of its shape buckets.
"""
